"""One attempt at a job: claim it, do it, and write down how it ended."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from core.errors import (
    DeadlineExceeded,
    LeaseLost,
    Misconfigured,
    Permanent,
    Retryable,
    StatementTimeout,
    StoreUnavailable,
)
from core.records import Lease, Source
from ingest.pipeline import Pipeline, heartbeat, index_version
from ingest.refresh import RefreshReport, refresh
from ingest.room import Room
from ingest.sources.memory import memory_of
from ingest.sources.open import open_source
from ingest.sources.rule_files import STATE as RULE_FILES
from store import audit, jobs, sources
from store.pool import Conn, writing

MAX_PROBLEMS = 100  # kept with the job; the counts tell how many there were
# Of what may pass, what the document may be to blame for. All else is an outage: waited out, and not counted.
BLAMED = (DeadlineExceeded, StatementTimeout)
WRITE_DOWN_S = 600.0  # so long does an outcome wait for a Postgres that is away; less than a task's time limit
AWAY_S = 1.0  # between two tries at that
RESUME_SHARE = 0.5  # of the backlog: a refresh that stopped for want of room begins to list again when there is some


def attempt(pipeline: Pipeline, job_id: UUID) -> str:
    """Do the job unless it is done, held or not due; returns `skipped`, `done`, `failed`, `retry`, `waits` or `lost`.

    Whatever goes wrong is on the job's row: a permanent error ends it; one that the document may be to blame for puts
    it back with a delay; so does an unforeseen one, which is raised for the log. Where a store, a model or the
    installation is to blame, the job waits for that and no attempt is counted. Raises StoreUnavailable when there was
    no claim.
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
    except BLAMED as error:
        _put_back(pipeline, lease, error.code, str(error))
        return "retry"
    except (Retryable, Misconfigured) as error:
        code, reason = error.code, str(error)
        _write_down(pipeline, lambda conn: jobs.give_back(conn, lease, code, reason))
        return "waits"
    except Permanent as error:
        code, reason = error.code, str(error)
        _write_down(pipeline, lambda conn: jobs.fail(conn, lease, code, reason))
        return "failed"
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
    room = Room(pipeline.max_backlog)
    room.check(pipeline.store, job.tenant_id, RESUME_SHARE)
    with heartbeat(pipeline, lease):
        report = _read_source(pipeline, lease, source, room)
    with writing(pipeline.store) as conn:
        jobs.finish(conn, lease, None, {"counts": report.counts, "problems": list(report.problems[:MAX_PROBLEMS])})
        audit.add(conn, job.tenant_id, "refresh", actor="service:worker", resource=f"source:{source.name}",
                  detail=report.counts)  # fmt: skip


def _read_source(pipeline: Pipeline, lease: Lease, source: Source, room: Room) -> RefreshReport:
    asked = lease.job.detail
    forget = (RULE_FILES,) if asked.get("allow_missing_rules") else ()
    memory = memory_of(pipeline.store, pipeline.blobs, source.id, forget=forget)
    with TemporaryDirectory(prefix="citadel-source-") as scratch:
        return refresh(
            pipeline.store, pipeline.blobs, source, open_source(source, memory, Path(scratch)), run=lease.job.id,
            permissions_only=bool(asked.get("permissions_only")),
            allow_mass_delete=bool(asked.get("allow_mass_delete")), hold=lambda conn: jobs.hold(conn, lease),
            progress=lambda done: room.check(pipeline.store, source.tenant_id),
        )  # fmt: skip


def _put_back(pipeline: Pipeline, lease: Lease, code: str, reason: str) -> None:
    _write_down(pipeline, lambda conn: jobs.retry_or_quarantine(conn, lease, code, reason))


def _write_down(pipeline: Pipeline, write: Callable[[Conn], None]) -> None:
    """Commit the outcome, when Postgres is back if it is away: a lease that runs out instead counts as an attempt."""
    give_up = time.monotonic() + WRITE_DOWN_S
    while True:
        try:
            with writing(pipeline.store) as conn:
                write(conn)
            return
        except StoreUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(AWAY_S)
