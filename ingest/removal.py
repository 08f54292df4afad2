"""A source that is to be read no more: its documents stay, or go the way of all that is deleted."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from core.errors import NotFound
from core.records import Lease
from ingest.erase import erase
from store import audit, jobs, sources
from store.audit import Actor
from store.blobs import BlobStore
from store.pool import Store, writing

REMOVES = "removes"  # in a job's detail: the name that its source had
BATCH = 200  # documents between two looks at what is left


def remove(store: Store, tenant_id: UUID, name: str, *, keep: bool, by: Actor) -> UUID | None:
    """Refresh the source no more: from this commit on no refresh begins, and one that is under way changes nothing.

    With `keep` its documents are those of a source of its name that documents are pushed to. Else they are for a job,
    which is returned, and the name is free. Raises NotFound.
    """
    with writing(store) as conn:
        source = sources.named(conn, tenant_id, name)
        count = sources.count_documents(conn, source.id)
        jobs.cancel_refreshes(conn, source.id, f"the source was removed by {by.actor}")
        sources.retire(conn, source.id, name if keep else f"{name} (removed {source.id})")
        job_id = None
        if not keep:
            job_id = jobs.add_refresh(conn, tenant_id, source.id, datetime.now(UTC), {REMOVES: name, "by": by.actor})
        detail = {"removed": source.kind, "documents": count, "kept": keep}
        audit.add(conn, tenant_id, "source.change", **asdict(by), resource=f"source:{name}", detail=detail)
    return job_id


def delete_source(store: Store, blobs: BlobStore, lease: Lease) -> None:
    """Erase what the source has, and then the source; the job is done with it. Raises what `erase` does, LeaseLost."""
    job, deleted = lease.job, 0
    assert job.source_id is not None
    hold = partial(jobs.hold, lease=lease)
    while not _dropped(store, lease, deleted):
        with writing(store) as conn:
            found = sources.some_documents(conn, job.source_id, BATCH)
        for document_id in found:
            try:
                erase(store, blobs, job.tenant_id, document_id, by=job.detail["by"], hold=hold)
                deleted += 1
            except NotFound:  # somebody else did
                continue


def _dropped(store: Store, lease: Lease, deleted: int) -> bool:
    """Whether nothing was left, and the source is gone and the job done."""
    assert lease.job.source_id is not None
    with writing(store) as conn:
        jobs.hold(conn, lease)
        if not sources.is_empty(conn, lease.job.source_id):
            return False
        jobs.detach(conn, lease)
        sources.drop(conn, lease.job.source_id)
        jobs.finish(conn, lease, None, {"counts": {"deleted": deleted}})
    return True
