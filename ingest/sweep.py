"""Bytes that no version names: of submissions that were refused after their bytes were kept, or never committed."""

from collections.abc import Iterable

from store import documents
from store.blobs import BlobStore
from store.pool import Store, writing


def sweep_blobs(store: Store, blobs: BlobStore, grace_s: float, *, dry_run: bool = False) -> int:
    """Delete what is older than `grace_s` and that no version of any tenant names; returns how many that are.

    Whoever refers to the bytes meanwhile makes sure of them under the same lock, so the grace only saves work.
    Raises BlobUnavailable, StoreUnavailable.
    """
    deleted = 0
    for keys in blobs.aged(grace_s):
        with writing(store) as conn:
            unused = documents.unused_blobs(conn, keys)
        deleted += len(unused) if dry_run else delete_unused(store, blobs, unused)
    return deleted


def delete_unused(store: Store, blobs: BlobStore, keys: Iterable[str]) -> int:
    """Delete those of the blobs that no version names; returns how many. Raises BlobUnavailable, StoreUnavailable."""
    deleted = 0
    for key in keys:
        with writing(store) as conn:  # held until the bytes are gone
            if documents.freeze_blob(conn, key):
                blobs.delete(key)
                deleted += 1
    return deleted
