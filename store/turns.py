"""Which jobs are handed to the broker next: tenants take turns, whatever one of them has waiting."""

from uuid import UUID

from store import jobs
from store.pool import Conn

# Tenants take turns: who has least under way comes first, however many wait. Of each tenant with open jobs its next
# ones are read, in the order in which they came.
TENANTS = f"""
    (SELECT tenant_id FROM jobs WHERE {jobs.OPEN} AND kind = %(kind)s ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant_id FROM jobs WHERE {jobs.OPEN} AND kind = %(kind)s AND tenant_id > t.tenant_id
            ORDER BY tenant_id LIMIT 1)
    FROM tenant t WHERE t.tenant_id IS NOT NULL
"""  # noqa: S608
UNDER_WAY = f"""
    SELECT count(*) AS jobs FROM jobs
    WHERE {jobs.OPEN} AND kind = %(kind)s AND tenant_id = t.tenant_id AND dispatched_at IS NOT NULL
"""  # noqa: S608
# A queue is first in, first out: what was sent well before a job that is under way, and is not, was lost. Paused
# sources are an array: as a join Postgres reads every job for it (200 ms for 100,000).
NEXT = f"""
    SELECT id, created_at, dispatched_at FROM jobs
    WHERE {jobs.OPEN} AND kind = %(kind)s AND tenant_id = t.tenant_id AND attempts < %(max)s AND next_try_at <= now()
      AND (lease_until IS NULL OR lease_until < now())
      AND (source_id IS NULL OR source_id <> ALL (ARRAY(SELECT s.id FROM sources s WHERE s.paused_at IS NOT NULL)))
      AND (dispatched_at IS NULL OR dispatched_at < lease_until
           OR dispatched_at < now() - make_interval(secs => %(resend_after_s)s)
           OR dispatched_at < (SELECT max(held.dispatched_at) FROM jobs held
                               WHERE held.lease_until >= now() AND held.kind = %(kind)s)
                              - make_interval(secs => %(overtaken_s)s))
    ORDER BY created_at LIMIT %(limit)s
"""  # noqa: S608
TO_SEND = f"""
    WITH RECURSIVE tenant AS ({TENANTS}), turn AS (
        SELECT n.id, n.created_at, n.dispatched_at,
               w.jobs + row_number() OVER (PARTITION BY t.tenant_id ORDER BY n.created_at) AS place
        FROM tenant t CROSS JOIN LATERAL ({UNDER_WAY}) w CROSS JOIN LATERAL ({NEXT}) n
        WHERE t.tenant_id IS NOT NULL ORDER BY place, n.created_at LIMIT %(limit)s
    )
    SELECT j.id FROM turn JOIN jobs j USING (id) WHERE j.dispatched_at IS NOT DISTINCT FROM turn.dispatched_at
    ORDER BY turn.place, turn.created_at FOR UPDATE OF j SKIP LOCKED
"""  # noqa: S608
SENT = "UPDATE jobs SET dispatched_at = now() WHERE id = ANY(%s)"


def take_unsent(conn: Conn, kind: str, limit: int, resend_after_s: float, overtaken_s: float) -> list[UUID]:
    """Up to `limit` jobs of a kind to hand to the broker, marked as sent in this transaction; tenants take turns.

    With them those that the broker may have lost: sent longer ago than `resend_after_s`, or that long before one which
    is under way, and not claimed.
    """
    values = {"kind": kind, "max": jobs.MAX_ATTEMPTS, "limit": limit, "resend_after_s": resend_after_s,
              "overtaken_s": overtaken_s}  # fmt: skip
    taken = [job_id for (job_id,) in conn.execute(TO_SEND, values).fetchall()] if limit else []
    if taken:
        conn.execute(SENT, (taken,))
    return taken
