"""One attempt at a job: claim it, do it, and write down how it ended."""

from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from core.errors import DeadlineExceeded, StatementTimeout
from core.records import Lease, Source
from ingest.endings import Endings
from ingest.heartbeat import heartbeat
from ingest.pipeline import Pipeline, index_versions
from ingest.refresh import RefreshReport, refresh
from ingest.removal import REMOVES, delete_source
from ingest.reread import read_again
from ingest.room import Room
from ingest.sources.memory import memory_of
from ingest.sources.open import open_source
from ingest.sources.rule_files import STATE as RULE_FILES
from store import audit, jobs, sources
from store.pool import writing

SMALL = 8192  # bytes
MAX_PROBLEMS = 100  # kept with the job; the counts tell how many there were
# Of what may pass, what the document may be to blame for. All else is an outage: waited out, and not counted.
BLAMED = (DeadlineExceeded, StatementTimeout)
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
    endings = Endings(pipeline.store, BLAMED)
    with endings.told(lease, *beside):
        if lease.job.kind == "index":
            index_versions(pipeline, [lease, *beside], endings.told)
        elif lease.job.detail.get(REMOVES):
            with heartbeat(pipeline.store, pipeline.lease_s, lease):
                delete_source(pipeline.store, pipeline.blobs, lease)
        else:
            _refresh(pipeline, lease)
    return endings.of(job_id)


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
