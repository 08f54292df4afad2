"""One attempt at a job: claim it, do it, and write down how it ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from core.errors import (
    CitadelError,
    DeadlineExceeded,
    LeaseLost,
    Misconfigured,
    Permanent,
    Retryable,
    SensitiveContent,
    StatementTimeout,
    StoreUnavailable,
)
from core.records import Lease, Source
from ingest.heartbeat import heartbeat
from ingest.pipeline import Pipeline, index_versions
from ingest.refresh import RefreshReport, refresh
from ingest.removal import REMOVES, delete_source
from ingest.reread import read_again
from ingest.room import Room
from ingest.sources.memory import memory_of
from ingest.sources.open import open_source
from ingest.sources.rule_files import STATE as RULE_FILES
from store import audit, jobs, policies, sources
from store.pool import Conn, writing

SMALL = 8192  # bytes
MAX_PROBLEMS = 100  # kept with the job; the counts tell how many there were
# Of what may pass, what the document may be to blame for. All else is an outage: waited out, and not counted.
BLAMED = (DeadlineExceeded, StatementTimeout)
WRITE_DOWN_S = 600.0  # so long does an outcome wait for a Postgres that is away; less than a task's time limit
AWAY_S = 1.0  # between two tries at that
RESUME_SHARE = 0.5  # of the backlog: a refresh that stopped for want of room begins to list again when there is some


def attempt(pipeline: Pipeline, job_id: UUID) -> str:
    """Do the job unless it is done, held or not due; returns `skipped`, `done`, `failed`, `quarantined`, `retry`,
    `waits` or `lost`.

    Small documents that wait beside a small one are done with it. Whatever goes wrong is on the job's row: a permanent
    error ends it; one that the document may be to blame for puts it back with a delay; so does an unforeseen one, which
    is raised for the log. Where a store, a model or the installation is to blame, the job waits for that and no
    attempt is counted. Raises StoreUnavailable when there was no claim.
    """
    with writing(pipeline.store) as conn:
        lease = jobs.claim(conn, job_id, pipeline.lease_s)
        if lease is None:
            return "skipped"
        beside = jobs.claim_small(conn, lease, pipeline.lease_s, SMALL, pipeline.together - 1)
    outcomes: dict[UUID, str] = {}
    told = partial(_told, pipeline, outcomes)
    with told(lease, *beside):
        if lease.job.kind == "index":
            index_versions(pipeline, [lease, *beside], told)
        elif lease.job.detail.get(REMOVES):
            with heartbeat(pipeline.store, pipeline.lease_s, lease):
                delete_source(pipeline.store, pipeline.blobs, lease)
        else:
            _refresh(pipeline, lease)
    return outcomes.get(job_id, "done")


@contextmanager
def _told(pipeline: Pipeline, outcomes: dict[UUID, str], *leases: Lease) -> Iterator[None]:
    """Write down what goes wrong in the body as how those of the jobs ended that have not ended yet, and go on.

    What is unforeseen goes up as well, and so stops those that were done together: they are done again, each alone.
    """
    try:
        yield
    except CitadelError as error:
        _end(pipeline, outcomes, leases, error, error.code, str(error))
    except Exception as error:
        reason = f"an unforeseen {type(error).__name__}; see the worker's log"
        _end(pipeline, outcomes, leases, error, "internal", reason)
        if any(outcomes[lease.job.id] != "lost" for lease in leases):
            raise


def _end(
    pipeline: Pipeline, outcomes: dict[UUID, str], leases: Sequence[Lease], error: Exception, code: str, reason: str
) -> None:
    outcome, write = _ending(error)
    for lease in leases:
        if lease.job.id in outcomes:
            continue
        try:
            if write is not None:
                _write_down(pipeline, partial(write, lease=lease, code=code, reason=reason))
            outcomes[lease.job.id] = outcome
        except LeaseLost:  # found when it wanted to write down how it failed
            outcomes[lease.job.id] = "lost"


def _ending(error: Exception) -> tuple[str, Callable[..., None] | None]:
    """What such an error makes of an attempt, and what writes that down."""
    if isinstance(error, LeaseLost):
        return "lost", None
    if isinstance(error, BLAMED):
        return "retry", jobs.retry_or_quarantine
    if isinstance(error, (Retryable, Misconfigured)):
        return "waits", jobs.give_back
    if isinstance(error, SensitiveContent):
        return "quarantined", policies.withhold
    return ("failed", jobs.fail) if isinstance(error, Permanent) else ("retry", jobs.retry_or_quarantine)


def _refresh(pipeline: Pipeline, lease: Lease) -> None:
    job = lease.job
    assert job.source_id is not None
    with writing(pipeline.store) as conn:
        source = sources.by_id(conn, job.tenant_id, job.source_id)
    room = Room(pipeline.max_backlog)
    room.check(pipeline.store, job.tenant_id, RESUME_SHARE)
    with heartbeat(pipeline.store, pipeline.lease_s, lease):
        report = _read_source(pipeline, lease, source, room)
        again = 0 if job.detail.get("permissions_only") else read_again(
            pipeline.store, job.tenant_id, source.id, pipeline.policy, hold=lambda conn: jobs.hold(conn, lease),
            progress=lambda done: room.check(pipeline.store, job.tenant_id),
        )  # fmt: skip
    counts = report.counts | ({"read_again": again} if again else {})
    with writing(pipeline.store) as conn:
        jobs.finish(conn, lease, None, {"counts": counts, "problems": list(report.problems[:MAX_PROBLEMS])})
        audit.add(conn, job.tenant_id, "refresh", actor="service:worker", resource=f"source:{source.name}",
                  detail=counts)  # fmt: skip


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
