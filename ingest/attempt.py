"""One attempt at a job: claim it, do it, and write down how it ended."""

from uuid import UUID

from core.errors import LeaseLost, Permanent, Retryable
from core.records import Lease
from ingest.folder import open_source
from ingest.pipeline import Pipeline, heartbeat, index_version
from ingest.refresh import refresh
from store import audit, jobs, sources
from store.pool import writing

MAX_PROBLEMS = 100  # kept with the job; the counts tell how many there were


def attempt(pipeline: Pipeline, job_id: UUID) -> str:
    """Do the job unless it is done, held or not due; returns `skipped`, `done`, `failed`, `retry` or `lost`.

    Whatever goes wrong is on the job's row: a permanent error ends it, a passing one puts it back with a delay, an
    unforeseen one does the same and is raised for the log.
    """
    with writing(pipeline.store) as conn:
        lease = jobs.claim(conn, job_id, pipeline.lease_s)
    if lease is None:
        return "skipped"
    try:
        return _attempt(pipeline, lease)
    except LeaseLost:  # found while it worked, or when it wanted to write down how it failed
        return "lost"


def _attempt(pipeline: Pipeline, lease: Lease) -> str:
    try:
        _do(pipeline, lease)
    except LeaseLost:
        raise
    except Permanent as error:
        _fail(pipeline, lease, error)
        return "failed"
    except Retryable as error:
        _put_back(pipeline, lease, error.code, str(error))
        return "retry"
    except Exception as error:
        _put_back(pipeline, lease, "internal", f"an unforeseen {type(error).__name__}; see the worker's log")
        raise
    return "done"


def _do(pipeline: Pipeline, lease: Lease) -> None:
    if lease.job.kind == "index":
        index_version(pipeline, lease)
    else:
        _refresh(pipeline, lease)


def _refresh(pipeline: Pipeline, lease: Lease) -> None:
    job = lease.job
    assert job.source_id is not None
    with writing(pipeline.store) as conn:
        source = sources.by_id(conn, job.tenant_id, job.source_id)
    with heartbeat(pipeline, lease):
        report = refresh(
            pipeline.store, pipeline.blobs, source, open_source(source),
            allow_mass_delete=bool(job.detail.get("allow_mass_delete")), hold=lambda conn: jobs.hold(conn, lease),
        )  # fmt: skip
    with writing(pipeline.store) as conn:
        jobs.finish(conn, lease, None, {"counts": report.counts, "problems": list(report.problems[:MAX_PROBLEMS])})
    audit.record(pipeline.store, job.tenant_id, "refresh", actor="service:worker", resource=f"source:{source.name}",
                 detail=report.counts)  # fmt: skip


def _fail(pipeline: Pipeline, lease: Lease, error: Permanent) -> None:
    with writing(pipeline.store) as conn:
        jobs.fail(conn, lease, error.code, str(error))


def _put_back(pipeline: Pipeline, lease: Lease, code: str, reason: str) -> None:
    with writing(pipeline.store) as conn:
        jobs.retry_or_quarantine(conn, lease, code, reason)
