"""Erase a document: from every reader at once, then from the blob store, and from what its jobs say."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from core.errors import NotFound, Retryable
from store import documents
from store import erase as erasures
from store.blobs import BlobStore
from store.pool import Conn, Store, writing

log = logging.getLogger("citadel.erase")

LEFT_ALONE_S = 60.0  # an erasure as young as this is still at work


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done now; the tombstone keeps the rest."""

    document_id: UUID
    blob_keys: tuple[str, ...]
    chunk_ids: tuple[int, ...]
    finished: bool  # False: the blob store or the database was away; the schedule tries again


def erase(
    store: Store,
    blobs: BlobStore,
    tenant_id: UUID,
    document_id: UUID,
    *,
    by: str,
    acting_for: str | None = None,
    expected: int | None = None,
    request_id: UUID | None = None,
    hold: Callable[[Conn], None] = lambda conn: None,
) -> Erased:
    """Hide and erase a document and its attachments, whoever asks: `by` is who, and `acting_for` for whom.

    The transaction that takes it away is made under `hold`.
    Raises NotFound, VersionConflict, StoreUnavailable: then nothing is changed. What fails after the document is gone
    from every reader is on its tombstone, and is finished by the schedule.
    """
    with writing(store) as conn:
        hold(conn)
        taken = erasures.take_away(conn, tenant_id, document_id, by, expected, request_id, acting_for)
    family = (*taken.below, taken)
    try:
        for each in family:
            _finish(store, blobs, tenant_id, each.document_id, each.blob_keys)
        finished = True
    except Retryable as error:
        log.warning("document %s is gone from every reader, but not all of it is erased yet: %s", document_id, error)
        finished = False
    keys = tuple(key for each in family for key in each.blob_keys)
    chunk_ids = tuple(chunk_id for each in family for chunk_id in each.chunk_ids)
    return Erased(document_id, keys, chunk_ids, finished)


def finish_erasures(store: Store, blobs: BlobStore, older_than_s: float = LEFT_ALONE_S) -> int:
    """Bring erasures to their end whose process or blob store went away; returns how many."""
    with writing(store) as conn:
        waiting = erasures.unfinished(conn, older_than_s)
    for tenant_id, document_id, keys in waiting:
        _finish(store, blobs, tenant_id, document_id, keys)
    return len(waiting)


def replay(store: Store, blobs: BlobStore, tenant_id: UUID, document_ids: Iterable[UUID], *, by: str) -> list[UUID]:
    """Erase again what a restore brought back; returns those that were there."""
    with writing(store) as conn:
        back = erasures.still_here(conn, tenant_id, document_ids)
    return [document_id for document_id in back if _again(store, blobs, tenant_id, document_id, by)]


def _again(store: Store, blobs: BlobStore, tenant_id: UUID, document_id: UUID, by: str) -> bool:
    try:
        erase(store, blobs, tenant_id, document_id, by=by)
    except NotFound:  # another did it meanwhile
        return False
    return True


def _finish(store: Store, blobs: BlobStore, tenant_id: UUID, document_id: UUID, keys: Iterable[str]) -> None:
    deleted = kept = 0
    for key in keys:
        with writing(store) as conn:
            if documents.freeze_blob(conn, key):
                blobs.delete(key)
                deleted += 1
            else:
                kept += 1
    with writing(store) as conn:
        erasures.finish(conn, tenant_id, document_id, {"blobs": {"deleted": deleted, "shared": kept}})
