"""What an operator does to jobs: finds those of a kind, ends them, or accepts them again. Each is in the audit."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from core.errors import Conflict, NotFound
from core.records import Job
from store import audit, jobs
from store.audit import Actor
from store.pool import Conn

MAX_TOLD = 1000  # ids in one row of the audit

CHOSEN = f"""
    {jobs.JOB} WHERE tenant_id = %(tenant)s AND (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(code)s::text IS NULL OR error_code = %(code)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
      AND (%(source)s::uuid IS NULL OR source_id = %(source)s
           OR document_id IN (SELECT id FROM documents WHERE source_id = %(source)s))
    ORDER BY created_at, id
"""  # noqa: S608
REASONS = """
    SELECT kind, state, coalesce(error_code, detail #>> '{refused,0,code}', '') AS error_code,
           count(*) AS jobs, min(created_at) AS oldest,
           min(CASE state WHEN 'accepted' THEN next_try_at END) AS next_try_at
    FROM jobs WHERE tenant_id = %s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs are meant; what is None excludes none."""

    state: str | None = None
    kind: str | None = None
    error_code: str | None = None
    source_id: UUID | None = None  # its refreshes, and the jobs of its documents


@dataclass(frozen=True, slots=True)
class Pile:
    """Jobs of one kind in one state for one reason."""

    kind: str
    state: str
    error_code: str
    jobs: int
    oldest: datetime  # when the oldest of them was accepted
    next_try_at: datetime | None  # the soonest


def chosen(conn: Conn, tenant_id: UUID, choice: Choice, states: Sequence[str]) -> list[Job]:
    """The tenant's jobs that the choice means and that are in one of these states, oldest first."""
    values = {"tenant": tenant_id, "state": choice.state, "code": choice.error_code, "kind": choice.kind,
              "source": choice.source_id}  # fmt: skip
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        return [job for job in cursor.execute(CHOSEN, values).fetchall() if job.state in states]


def piles(conn: Conn, tenant_id: UUID) -> list[Pile]:
    """How much there is of what, and why it waits."""
    with conn.cursor(row_factory=class_row(Pile)) as cursor:
        return cursor.execute(REASONS, (tenant_id,)).fetchall()


def cancel(conn: Conn, tenant_id: UUID, job_ids: Sequence[UUID], by: Actor) -> int:
    """End those of the jobs that are open; returns how many were. The transaction's last."""
    ended = [job_id for job_id in job_ids if jobs.cancel(conn, tenant_id, job_id, by.actor)]
    return _told(conn, tenant_id, "job.cancel", ended, by)


def retry(conn: Conn, tenant_id: UUID, job_ids: Sequence[UUID], by: Actor) -> int:
    """Accept those of the jobs again that are at an end but done; returns how many. The transaction's last."""
    opened = [job_id for job_id in job_ids if jobs.reopen(conn, tenant_id, job_id)]
    return _told(conn, tenant_id, "job.retry", opened, by)


def cancel_one(conn: Conn, tenant_id: UUID, job_id: UUID, by: Actor) -> Job:
    """The job, ended; one that is cancelled already is fine. Raises NotFound, and Conflict for one at another end."""
    return _one(conn, tenant_id, job_id, "cancelled", lambda: cancel(conn, tenant_id, [job_id], by))


def retry_one(conn: Conn, tenant_id: UUID, job_id: UUID, by: Actor) -> Job:
    """The job, accepted; one that waits already is fine. Raises NotFound, and Conflict for one under way or done."""
    return _one(conn, tenant_id, job_id, "accepted", lambda: retry(conn, tenant_id, [job_id], by))


def _one(conn: Conn, tenant_id: UUID, job_id: UUID, wanted: str, change: Callable[[], int]) -> Job:
    change()
    job = jobs.get(conn, job_id)
    if job.tenant_id != tenant_id:
        raise NotFound("there is no such job")
    if job.state != wanted:
        raise Conflict(f"the job is {job.state}")
    return job


def _told(
    conn: Conn, tenant_id: UUID, action: Literal["job.cancel", "job.retry"], job_ids: Sequence[UUID], by: Actor
) -> int:
    if job_ids:
        detail = {"jobs": [str(job_id) for job_id in job_ids[:MAX_TOLD]], "count": len(job_ids)}
        audit.add(conn, tenant_id, action, **asdict(by), detail=detail)
    return len(job_ids)
