"""A collection's documents in an index of their own: a scratch tenant, made once and found again by its content."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from core.errors import Invalid
from core.records import Place, Principal, Profile
from eval.collection import Collection
from ingest.bulk import index_all, missing
from ingest.chunk import ChunkBudget
from ingest.pipeline import Pipeline
from store import access, changes, chunks, documents
from store.blobs import BlobStore
from store.pool import Store, reading_tenant, writing
from store.profiles import ensure_tenant, live_profile
from store.scratch import Scratch, drop_some, drop_tenant

PREFIX = "eval/"
DELETED = 500  # documents at a time
FORMAT = 2  # of what the index holds of a document; one that holds more is another index


def tenant_name(collection: Collection, profile: Profile) -> str:
    """The folder's name, then what the index depends on: the documents, the profile and the format."""
    told = re.sub(r"[^\w.-]+", "-", collection.name)[:40]
    return (
        f"{PREFIX}{told}/{collection.digest[:16]}/{hashlib.sha256(f'{FORMAT} {profile.name}'.encode()).hexdigest()[:8]}"
    )


def ensure_scratch(
    pipeline: Callable[[], Pipeline],
    store: Store,
    collection: Collection,
    profile: Profile,
    budget: ChunkBudget,
    progress: Callable[[int, int], None] = lambda indexed, of: None,
) -> str:
    """The name of the collection's tenant; what it lacks is indexed first, by a pipeline that is opened only then.

    Tenants share nothing, so no search of another one meets these documents. A run that was interrupted goes on
    where it was.
    """
    name = tenant_name(collection, profile)
    with writing(store) as conn:
        tenant_id = ensure_tenant(conn, name, profile.id)
    wanted = missing(store, tenant_id, collection.documents)
    if wanted:
        index_all(pipeline(), tenant_id, profile, budget, wanted, lambda done: progress(done, len(wanted)))
    return name


def delete_scratch(
    store: Store, blobs: BlobStore, which: Scratch, progress: Callable[[int, int], None] = lambda deleted, of: None
) -> None:
    """Delete a scratch tenant, its documents first, and the blobs that nothing else refers to. Raises Invalid for a
    tenant that is none."""
    if not which.name.startswith(PREFIX):
        raise Invalid(f"{which.name!r} is no scratch tenant")
    deleted = 0
    while True:
        with writing(store) as conn:
            gone, keys = drop_some(conn, which.id, DELETED)
        for key in keys:
            with writing(store) as conn:
                if documents.freeze_blob(conn, key):
                    blobs.delete(key)
        deleted += gone
        progress(deleted, max(which.documents, deleted))
        if not gone:
            break
    with writing(store) as conn:
        drop_tenant(conn, which.id)


def visible_places(store: Store, principal: Principal) -> list[Place]:
    """Every chunk of the live index that the principal can find."""
    with reading_tenant(store, principal.tenant_id) as conn:
        access.enter_scope(conn, principal)
        return chunks.places(conn, principal.tenant_id, live_profile(conn, principal.tenant_id).id)


def index_state(store: Store, tenant_id: UUID, subjects: Iterable[str]) -> dict[str, Any]:
    """What answers follow from on the index's side: its last change, and what each subject may see of it."""
    scopes: dict[str, Any] = {}
    for subject in sorted(set(subjects)):
        with reading_tenant(store, tenant_id) as conn:
            scope = access.enter_scope(conn, Principal(tenant_id, subject))
            scopes[subject] = (scope.epoch, sorted(scope.label_set_ids))
    with reading_tenant(store, tenant_id) as conn:
        profile = live_profile(conn, tenant_id)
        return {"tenant": str(tenant_id), "position": changes.position(conn, tenant_id), "scopes": scopes,
                "profile": asdict(profile)}  # fmt: skip
