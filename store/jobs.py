"""Jobs: accepted work, its leases and its outcome. The row is the only truth; a broker carries ids.

A claim takes a lease with a fencing token and counts an attempt. Whatever a worker writes afterwards names the token,
so a worker that lost its lease changes nothing. A try that failed for want of something else than the document is given
back: only what the document may be to blame for brings it nearer to quarantine.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import LeaseLost, NotFound
from core.records import Job, Lease
from store.pool import Conn

MAX_ATTEMPTS = 3
AMONG = 200  # a tenant's open jobs, the first
BACKOFF_S = (5, 30, 120)  # before the second, third, … attempt
FAULT_BACKOFF_S = (1, 2, 5, 15, 30, 60)  # after the first, second, … fault in a row; the last for all that follow

ENDED = ("done", "failed", "quarantined", "cancelled")
OPEN = "state NOT IN ('done', 'failed', 'quarantined', 'cancelled')"  # as the index jobs_open has it

ADD_INDEX = "INSERT INTO jobs (tenant_id, kind, document_id, version) VALUES (%s, 'index', %s, %s) RETURNING id"
ADD_FINISHED = """
    INSERT INTO jobs (tenant_id, kind, state, document_id, version, seq)
    VALUES (%s, 'index', 'done', %s, %s, %s) RETURNING id
"""
INDEXING = """
    SELECT id FROM jobs WHERE document_id = %s AND version = %s AND kind = 'index' ORDER BY created_at, id LIMIT 1
"""
ADD_REFRESH = """
    INSERT INTO jobs (tenant_id, kind, source_id, due_at, detail) VALUES (%s, 'refresh', %s, %s, %s)
    ON CONFLICT (source_id, due_at) DO NOTHING RETURNING id
"""
ADD_EVAL = """
    INSERT INTO jobs (tenant_id, kind, schedule_id, due_at) VALUES (%s, 'eval', %s, %s)
    ON CONFLICT (schedule_id, due_at) DO NOTHING RETURNING id
"""
EVAL_IS_OPEN = f"SELECT FROM jobs WHERE schedule_id = %s AND {OPEN} LIMIT 1"  # noqa: S608
SCHEDULE_OF = "SELECT schedule_id FROM jobs WHERE id = %s"
REFRESH_WAITS = "SELECT FROM jobs WHERE source_id = %s AND kind = 'refresh' AND state = 'accepted' LIMIT 1"
JOB = """
    SELECT id, tenant_id, kind, state, document_id, version, source_id, attempts, faults, error_code, error, seq,
           detail, CASE state WHEN 'accepted' THEN next_try_at END AS next_try_at, created_at, updated_at
    FROM jobs
"""
# For a credential that does not reach everything: jobs of versions that its scope shows, and refreshes of the sources
# whose labels it does.
REACHED = """
    WHERE (%(all)s OR source_id IN (
               SELECT s.id FROM sources s WHERE s.label_set_id IN (SELECT unnest(scope_label_sets()))
               OR substring((SELECT scope_bits()) FROM s.label_set_id - (SELECT scope_base()) + 1 FOR 1) = B'1')
           OR (document_id, version) IN (SELECT v.document_id, v.version FROM versions v))
"""
GET = JOB + REACHED + " AND id = %(id)s"
RECENT_ONES = """
    AND tenant_id = %(tenant)s AND (%(state)s::text IS NULL OR state = %(state)s)
    AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s))
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s
"""
RECENT = JOB + REACHED + RECENT_ONES
# A lease begins when its row is had, which may be long after the statement did: who vanished within a commit holds its
# rows until Postgres notices.
CLAIM = f"""
    UPDATE jobs SET attempts = attempts + 1, lease_token = nextval('lease_tokens'), updated_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
        state = CASE kind WHEN 'index' THEN 'parsing' ELSE 'running' END
    FROM (SELECT id FROM jobs WHERE id = %(id)s FOR UPDATE) had
    WHERE jobs.id = had.id AND {OPEN} AND attempts < %(max)s
      AND next_try_at <= now() AND (lease_until IS NULL OR lease_until < clock_timestamp())
      AND NOT EXISTS (SELECT FROM jobs other WHERE other.source_id = jobs.source_id AND other.id <> jobs.id
                      AND other.lease_until >= clock_timestamp())
      AND NOT EXISTS (SELECT FROM sources s WHERE s.id = source_id AND s.paused_at IS NOT NULL)
    RETURNING lease_token
"""  # noqa: S608
# Looked for among the first that wait, so that it costs the same however many do. A worker that dies in company counts
# for none of them but the one that it was sent for; each is done alone then, for the lease is still on its row.
CLAIM_SMALL = f"""
    UPDATE jobs SET lease_token = nextval('lease_tokens'), updated_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s), state = 'parsing'
    WHERE id IN (
        SELECT j.id FROM jobs j JOIN versions v ON v.document_id = j.document_id AND v.version = j.version
        WHERE j.id IN (SELECT id FROM jobs WHERE {OPEN} AND kind = 'index' AND tenant_id = %(tenant)s
                       ORDER BY created_at LIMIT %(among)s)
          AND j.state = 'accepted' AND j.attempts = 0 AND j.lease_until IS NULL
          AND j.next_try_at <= now()
          AND v.size <= %(size)s AND EXISTS (SELECT FROM versions beside WHERE beside.document_id = %(document)s
                                             AND beside.version = %(version)s AND beside.size <= %(size)s)
        ORDER BY j.created_at LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED)
    RETURNING id, lease_token
"""  # noqa: S608
# Refreshes of one source take turns: one that began under old rules must not undo what a newer one closed.
LOCK_SOURCE = "SELECT FROM sources WHERE id = (SELECT source_id FROM jobs WHERE id = %s) FOR NO KEY UPDATE"
RENEW = """
    UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => %s), updated_at = now()
    WHERE (id, lease_token) IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[]))
"""
SET_STATE = "UPDATE jobs SET state = %s, updated_at = now() WHERE id = %s AND lease_token = %s"
HELD = "SELECT FROM jobs WHERE id = %s AND lease_token = %s FOR UPDATE"
ADD_DETAIL = "UPDATE jobs SET detail = detail || %s WHERE id = %s"
FINISH = """
    UPDATE jobs SET state = 'done', attempts = greatest(attempts, 1), seq = %s, detail = detail || %s,
        error_code = NULL, error = NULL, lease_until = NULL, lease_token = NULL, updated_at = now()
    WHERE id = %s AND lease_token = %s
"""
FAIL = """
    UPDATE jobs SET state = %s, attempts = greatest(attempts, 1), error_code = %s, error = %s, lease_until = NULL,
        lease_token = NULL, updated_at = now()
    WHERE id = %s AND lease_token = %s
    RETURNING document_id, version
"""
RETRY = """
    UPDATE jobs SET state = 'accepted', error_code = %s, error = %s, lease_until = NULL, lease_token = NULL, faults = 0,
        attempts = greatest(attempts, 1), dispatched_at = NULL, next_try_at = now() + make_interval(secs => %s),
        updated_at = now()
    WHERE id = %s AND lease_token = %s
"""
# Spread out, so that what an outage stopped does not come back in one burst.
GIVE_BACK = """
    UPDATE jobs SET state = 'accepted', error_code = %s, error = %s, lease_until = NULL, lease_token = NULL,
        attempts = greatest(attempts - 1, 0), faults = faults + 1, dispatched_at = NULL, updated_at = now(),
        next_try_at = now() + make_interval(secs => %s * (0.75 + 0.5 * random()))
    WHERE id = %s AND lease_token = %s
"""
REOPEN = """
    UPDATE jobs SET state = 'accepted', attempts = 0, faults = 0, dispatched_at = NULL, next_try_at = now(),
        error_code = NULL, error = NULL, updated_at = now()
    WHERE tenant_id = %s AND id = %s AND state IN ('failed', 'quarantined', 'cancelled')
    RETURNING document_id, version
"""
# Its worker, if it has one, finds its lease gone at its next commit.
CANCEL = f"""
    UPDATE jobs SET state = 'cancelled', error_code = 'cancelled', error = %s, lease_until = NULL, lease_token = NULL,
        updated_at = now()
    WHERE tenant_id = %s AND id = %s AND {OPEN}
    RETURNING document_id, version
"""  # noqa: S608
CANCEL_REFRESHES = f"""
    UPDATE jobs SET state = 'cancelled', error_code = 'cancelled', error = %s, lease_until = NULL, lease_token = NULL,
        updated_at = now()
    WHERE source_id = %s AND {OPEN}
"""  # noqa: S608
DETACH = "UPDATE jobs SET source_id = NULL WHERE id = %s AND lease_token = %s"
# The source's refresh waits as if it had not begun.
SUSPEND = f"""
    UPDATE jobs SET state = 'accepted', lease_until = NULL, lease_token = NULL, dispatched_at = NULL,
        updated_at = now(), attempts = greatest(0, attempts - 1)
    WHERE source_id = %s AND {OPEN} AND lease_token IS NOT NULL
"""  # noqa: S608
REOPEN_VERSION = "UPDATE versions SET state = 'pending' WHERE document_id = %s AND version = %s AND state = 'failed'"
FAIL_VERSION = "UPDATE versions SET state = 'failed' WHERE document_id = %s AND version = %s AND state = 'pending'"
SPENT = f"""
    UPDATE jobs SET state = 'quarantined', error_code = 'worker_lost', updated_at = now(),
        error = 'the worker died or lost its lease on ' || CASE WHEN error IS NULL THEN 'each of ' ELSE 'the last of '
                END || attempts || ' attempts' || coalesce('; before: ' || error, '')
    WHERE id IN (SELECT id FROM jobs WHERE {OPEN} AND attempts >= %s AND lease_until < now() FOR UPDATE SKIP LOCKED)
    RETURNING document_id, version
"""  # noqa: S608
COUNTED, BY_STATE = "SELECT kind, state, count(*) FROM jobs", "GROUP BY kind, state ORDER BY kind, state"
COUNTS = COUNTED + REACHED + BY_STATE
AGE = "SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM jobs"
OLDEST = AGE + REACHED + f" AND {OPEN}"
OUTCOMES = """
    SELECT state, count(DISTINCT document_id) FROM jobs WHERE tenant_id = %s AND kind = 'index' GROUP BY state
"""
COUNT_OPEN = f"SELECT count(*) FROM (SELECT FROM jobs WHERE tenant_id = %s AND {OPEN} LIMIT %s) counted"  # noqa: S608


def add_index(conn: Conn, tenant_id: UUID, document_id: UUID, version: int) -> UUID:
    """A job that will index this version."""
    return _id(conn.execute(ADD_INDEX, (tenant_id, document_id, version)).fetchone())


def add_finished(conn: Conn, tenant_id: UUID, document_id: UUID, version: int, seq: int) -> UUID:
    """A job whose work, a change of labels or metadata, is part of this transaction."""
    return _id(conn.execute(ADD_FINISHED, (tenant_id, document_id, version, seq)).fetchone())


def indexing(conn: Conn, document_id: UUID, version: int) -> UUID:
    """The job that was added with this version to index it."""
    return _id(conn.execute(INDEXING, (document_id, version)).fetchone())


def add_refresh(
    conn: Conn, tenant_id: UUID, source_id: UUID, due_at: datetime, detail: dict[str, Any] | None = None
) -> UUID | None:
    """A job that will refresh a source; None when one for that due time exists, whoever added it."""
    row = conn.execute(ADD_REFRESH, (tenant_id, source_id, due_at, Jsonb(detail or {}))).fetchone()
    return None if row is None else _id(row)


def refresh_waits(conn: Conn, source_id: UUID) -> bool:
    """Whether a refresh of this source is accepted and not begun."""
    return conn.execute(REFRESH_WAITS, (source_id,)).fetchone() is not None


def add_eval(conn: Conn, tenant_id: UUID, schedule_id: UUID, due_at: datetime) -> UUID | None:
    """A job that will run a scheduled evaluation; None when one for that due time exists, whoever added it."""
    row = conn.execute(ADD_EVAL, (tenant_id, schedule_id, due_at)).fetchone()
    return None if row is None else _id(row)


def eval_is_open(conn: Conn, schedule_id: UUID) -> bool:
    """Whether a run of this schedule waits or is under way."""
    return conn.execute(EVAL_IS_OPEN, (schedule_id,)).fetchone() is not None


def schedule_of(conn: Conn, job_id: UUID) -> UUID:
    """The schedule that an evaluation's job is of."""
    return _id(conn.execute(SCHEDULE_OF, (job_id,)).fetchone())


def get(conn: Conn, job_id: UUID, *, in_scope: bool = False) -> Job:
    """A job by id; with `in_scope`, unless the transaction's scope hides its document or source. Raises NotFound."""
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        job = cursor.execute(GET, {"id": job_id, "all": not in_scope}).fetchone()
    if job is None:
        raise NotFound("there is no such job")
    return job


def recent(
    conn: Conn, tenant_id: UUID, state: str | None, limit: int, before: tuple[datetime, UUID] | None = None,
    *, in_scope: bool = False,
) -> list[Job]:  # fmt: skip
    """The tenant's latest jobs, newest first, or those older than (created_at, id); `in_scope` as for `get`."""
    at, job_id = before or (None, None)
    values = {"tenant": tenant_id, "state": state, "limit": limit, "at": at, "id": job_id, "all": not in_scope}
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(RECENT, values).fetchall()


def claim(conn: Conn, job_id: UUID, lease_s: float) -> Lease | None:
    """Take the job, counting an attempt; None when it is done, held, not due, out of attempts, or not its turn."""
    conn.execute(LOCK_SOURCE, (job_id,))
    row = conn.execute(CLAIM, {"id": job_id, "lease_s": lease_s, "max": MAX_ATTEMPTS}).fetchone()
    return None if row is None else Lease(get(conn, job_id), int(row[0]))


def claim_small(conn: Conn, beside: Lease, lease_s: float, size: int, limit: int) -> list[Lease]:
    """Up to `limit` jobs of the same tenant to do beside one, not tried yet, of documents of at most `size` bytes.

    None beside a job that was tried before, or whose document is larger: it is done alone.
    """
    job = beside.job
    if job.kind != "index" or job.attempts > 1:
        return []
    values = {"tenant": job.tenant_id, "document": job.document_id, "version": job.version, "lease_s": lease_s,
              "size": size, "limit": limit, "among": AMONG}  # fmt: skip
    return [Lease(get(conn, job_id), token) for job_id, token in conn.execute(CLAIM_SMALL, values).fetchall()]


def renew(conn: Conn, leases: Sequence[Lease], lease_s: float) -> None:
    """Keep those of the leases that are still held for another `lease_s` seconds."""
    conn.execute(RENEW, (lease_s, [lease.job.id for lease in leases], [lease.token for lease in leases]))


def set_state(conn: Conn, lease: Lease, state: str) -> None:
    """Say which stage the job is in. Raises LeaseLost."""
    _must_hold(conn.execute(SET_STATE, (state, lease.job.id, lease.token)).rowcount)


def hold(conn: Conn, lease: Lease) -> None:
    """Lock the job's row, so that the lease cannot be lost before this transaction ends. Raises LeaseLost."""
    _must_hold(conn.execute(HELD, (lease.job.id, lease.token)).rowcount)


def finish(conn: Conn, lease: Lease, seq: int | None, detail: dict[str, Any] | None = None) -> None:
    """The job is done; its effect is visible from `seq` on. Raises LeaseLost."""
    _must_hold(conn.execute(FINISH, (seq, Jsonb(detail or {}), lease.job.id, lease.token)).rowcount)


def add_detail(conn: Conn, job_id: UUID, detail: dict[str, Any]) -> None:
    """Say more about a job that this transaction has finished."""
    conn.execute(ADD_DETAIL, (Jsonb(detail), job_id))


def fail(conn: Conn, lease: Lease, code: str, reason: str) -> None:
    """The job cannot succeed; its version fails with it. Raises LeaseLost."""
    _end(conn, lease, "failed", code, reason)


def quarantine(conn: Conn, lease: Lease, code: str, reason: str) -> None:
    """Set the job aside until somebody accepts it again; its version fails with it. Raises LeaseLost."""
    _end(conn, lease, "quarantined", code, reason)


def retry_or_quarantine(conn: Conn, lease: Lease, code: str, reason: str) -> None:
    """Put the job back with a growing delay, or, after the last attempt, in quarantine. Raises LeaseLost."""
    if lease.job.attempts >= MAX_ATTEMPTS:
        _end(conn, lease, "quarantined", code, reason)
        return
    delay = BACKOFF_S[max(lease.job.attempts, 1) - 1]
    _must_hold(conn.execute(RETRY, (code, reason, delay, lease.job.id, lease.token)).rowcount)


def give_back(conn: Conn, lease: Lease, code: str, reason: str) -> None:
    """Put the job back as if it had not been tried, however often: what it needs is away. Raises LeaseLost."""
    delay = FAULT_BACKOFF_S[min(lease.job.faults, len(FAULT_BACKOFF_S) - 1)]
    _must_hold(conn.execute(GIVE_BACK, (code, reason, delay, lease.job.id, lease.token)).rowcount)


def reopen(conn: Conn, tenant_id: UUID, job_id: UUID) -> bool:
    """Accept a job again that is at an end but done, with its attempts forgotten; whether there was one."""
    row = conn.execute(REOPEN, (tenant_id, job_id)).fetchone()
    if row is not None:
        conn.execute(REOPEN_VERSION, row)
    return row is not None


def cancel(conn: Conn, tenant_id: UUID, job_id: UUID, by: str) -> bool:
    """End an open job; what works on it stops at its next commit, and its version fails. Whether it was open."""
    row = conn.execute(CANCEL, (f"cancelled by {by}", tenant_id, job_id)).fetchone()
    if row is not None and row[0] is not None:
        conn.execute(FAIL_VERSION, row)
    return row is not None


def cancel_refreshes(conn: Conn, source_id: UUID, why: str) -> None:
    """End the source's open jobs; what works on one stops at its next commit."""
    conn.execute(CANCEL_REFRESHES, (why, source_id))


def detach(conn: Conn, lease: Lease) -> None:
    """The job outlives its source. Raises LeaseLost."""
    _must_hold(conn.execute(DETACH, (lease.job.id, lease.token)).rowcount)


def suspend(conn: Conn, source_id: UUID) -> bool:
    """Stop the source's refresh at its next commit, to go on later, and count no attempt; whether one was under way."""
    return conn.execute(SUSPEND, (source_id,)).rowcount > 0


def quarantine_spent(conn: Conn) -> int:
    """Quarantine jobs whose last allowed attempt ended with its worker; returns how many."""
    rows = conn.execute(SPENT, (MAX_ATTEMPTS,)).fetchall()
    for document_id, version in rows:
        conn.execute(FAIL_VERSION, (document_id, version))
    return len(rows)


def counts(conn: Conn, *, in_scope: bool = False) -> list[tuple[str, str, int]]:
    """Jobs by kind and state, over all tenants that the transaction sees; `in_scope` as for `get`."""
    return [(kind, state, n) for kind, state, n in conn.execute(COUNTS, {"all": not in_scope}).fetchall()]


def oldest_open_s(conn: Conn, *, in_scope: bool = False) -> float:
    """Age in seconds of the oldest job that is not at its end, 0 when there is none; `in_scope` as for `get`."""
    row = conn.execute(OLDEST, {"all": not in_scope}).fetchone()
    return float(row[0]) if row else 0.0


def outcomes(conn: Conn, tenant_id: UUID) -> dict[str, int]:
    """Documents with an indexing job, by the job's state."""
    return {state: count for state, count in conn.execute(OUTCOMES, (tenant_id,)).fetchall()}


def count_open(conn: Conn, tenant_id: UUID, at_most: int | None = None) -> int:
    """How many of the tenant's jobs are not at their end, counted no further than `at_most`."""
    row = conn.execute(COUNT_OPEN, (tenant_id, at_most)).fetchone()
    return int(row[0]) if row else 0


def _end(conn: Conn, lease: Lease, state: str, code: str, reason: str) -> None:
    row = conn.execute(FAIL, (state, code, reason, lease.job.id, lease.token)).fetchone()
    _must_hold(0 if row is None else 1)
    if row is not None and row[0] is not None:
        conn.execute(FAIL_VERSION, row)


def _must_hold(rowcount: int) -> None:
    if rowcount != 1:
        raise LeaseLost("another worker holds this job now")


def _id(row: tuple[Any, ...] | None) -> UUID:
    assert row is not None
    return UUID(str(row[0]))
