"""How many replaced versions a tenant keeps, how long its ended jobs, and the removal of the others."""

from dataclasses import dataclass
from uuid import UUID

from store.pool import Conn, one_row

READ = "SELECT keep_versions AS versions, keep_days AS days, keep_job_days AS job_days FROM tenants WHERE id = %s"
SET = "UPDATE tenants SET keep_versions = %s, keep_days = %s, keep_job_days = %s WHERE id = %s"
# A version is replaced when the next one that was indexed came. With both limits, it is kept as long as either says so.
DUE = """
    SELECT v.document_id, max(v.version) + 1, count(*)::int, count(DISTINCT v.blob_key)::int
    FROM versions v JOIN documents d ON d.id = v.document_id JOIN tenants t ON t.id = d.tenant_id
    WHERE v.version < d.current_version AND (t.keep_versions IS NOT NULL OR t.keep_days IS NOT NULL)
      AND (t.keep_versions IS NULL OR v.version < d.current_version - t.keep_versions)
      AND (t.keep_days IS NULL OR now() - make_interval(days => t.keep_days) > (
           SELECT min(n.created_at) FROM versions n
           WHERE n.document_id = v.document_id AND n.version > v.version AND n.state = 'indexed'))
    GROUP BY v.document_id LIMIT %s
"""
LOCK = "SELECT FROM documents WHERE id = %s AND current_version >= %s FOR UPDATE"
REMOVE = "DELETE FROM versions WHERE document_id = %s AND version < %s RETURNING blob_key"
# But for the reason why a document's latest version is not read, and refreshes that a source lags behind.
JOBS_DUE = """
    SELECT j.id FROM tenants t JOIN jobs j ON j.tenant_id = t.id
    WHERE t.keep_job_days IS NOT NULL AND j.state IN ('done', 'failed', 'quarantined', 'cancelled')
      AND j.updated_at < now() - make_interval(days => t.keep_job_days)
      AND NOT EXISTS (SELECT FROM versions v JOIN documents d ON d.id = v.document_id
                      WHERE v.document_id = j.document_id AND v.version = j.version AND v.state = 'failed'
                        AND v.version = d.latest_version)
      AND NOT EXISTS (SELECT FROM sources s
                      WHERE s.id = j.source_id AND j.due_at > coalesce(s.content_as_of, '-infinity'))
    ORDER BY j.tenant_id, j.updated_at LIMIT %s
"""
REMOVE_JOBS = f"DELETE FROM jobs WHERE id IN ({JOBS_DUE})"  # noqa: S608
COUNT_JOBS = f"SELECT count(*) FROM ({JOBS_DUE}) due"  # noqa: S608
NOTE = "UPDATE documents SET oldest_version = %s WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept beside the current version, None and None: every version; and how long jobs are."""

    versions: int | None  # so many before the current one
    days: int | None  # and those that were replaced no longer ago
    job_days: int | None = None  # days that jobs are kept after their end; None: all of them


@dataclass(frozen=True, slots=True)
class Due:
    """A document with versions that need not be kept."""

    document_id: UUID
    oldest: int  # the first version that stays
    versions: int
    blobs: int


def of_tenant(conn: Conn, tenant_id: UUID) -> Retention:
    """What the tenant keeps. Raises NotFound."""
    return one_row(conn, Retention, READ, (tenant_id,), "there is no such tenant")


def set_retention(conn: Conn, tenant_id: UUID, retention: Retention) -> None:
    """Keep so much from the next upkeep on."""
    conn.execute(SET, (retention.versions, retention.days, retention.job_days, tenant_id))


def due(conn: Conn, limit: int | None) -> list[Due]:
    """Up to `limit` documents, of all tenants, that hold versions which are to go."""
    return [Due(*row) for row in conn.execute(DUE, (limit,)).fetchall()]


def remove_before(conn: Conn, document_id: UUID, oldest: int) -> list[str]:
    """Delete the document's versions before `oldest`, with all that hangs on them; returns the keys of their blobs,
    to be deleted after the commit where nothing else refers to them."""
    if conn.execute(LOCK, (document_id, oldest)).fetchone() is None:
        return []
    keys = {str(key) for (key,) in conn.execute(REMOVE, (document_id, oldest)).fetchall()}
    conn.execute(NOTE, (oldest, document_id))
    return sorted(keys)


def remove_jobs(conn: Conn, limit: int) -> int:
    """Delete up to so many jobs, of all tenants, that ended longer ago than is kept; returns how many."""
    return conn.execute(REMOVE_JOBS, (limit,)).rowcount


def count_jobs(conn: Conn) -> int:
    """How many those are."""
    row = conn.execute(COUNT_JOBS, (None,)).fetchone()
    return int(row[0]) if row else 0
