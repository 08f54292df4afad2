"""Policies on personal data and secrets: of a tenant and its sources, and which texts were read under others.

A source's part goes before its tenant's, and that before the installation's. With each version stands the policy that
its text was read under and the kinds that were found, so what another policy asks to be read again is known exactly.
"""

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from psycopg.types.json import Jsonb

from core.errors import NotFound
from core.records import Lease
from core.sensitive import Kind, Policy
from store import changes, erase, jobs, retention
from store.pool import Conn

OF_TENANT = "SELECT sensitive FROM tenants WHERE id = %s"
OF_SOURCE = "SELECT sensitive FROM sources WHERE tenant_id = %s AND id = %s"
IN_FORCE = """
    SELECT t.sensitive || s.sensitive FROM documents d
    JOIN sources s ON s.id = d.source_id JOIN tenants t ON t.id = d.tenant_id WHERE d.id = %s
"""
CHANGE_TENANT = "UPDATE tenants SET sensitive = (sensitive - %s::text[]) || %s WHERE id = %s"
CHANGE_SOURCE = "UPDATE sources SET sensitive = (sensitive - %s::text[]) || %s WHERE tenant_id = %s AND id = %s"
# What a version was read for: another action on a kind that it holds, or was not looked through for.
OTHERWISE = """
    p.action <> coalesce(v.screened #>> ARRAY['policy', p.kind], 'off')
    AND (coalesce(v.screened #>> ARRAY['policy', p.kind], 'off') = 'off' OR v.screened -> 'found' ? p.kind)
"""
# Of a text that is read, each difference; of those that it replaced, what the policy keeps from readers. A text from
# before there was a policy is not read again merely to be flagged, unless that is asked for.
STALE = f"""
    FROM documents d JOIN sources s ON s.id = d.source_id JOIN tenants t ON t.id = d.tenant_id
    WHERE d.tenant_id = %(tenant)s AND (%(source)s::uuid IS NULL OR d.source_id = %(source)s)
      AND d.current_version IS NOT NULL
      AND NOT EXISTS (SELECT FROM versions n WHERE n.document_id = d.id AND n.version = d.latest_version
                      AND n.state = 'pending')
      AND EXISTS (
          SELECT FROM versions v
          CROSS JOIN jsonb_each_text(%(default)s || t.sensitive || s.sensitive) AS p (kind, action)
          WHERE v.document_id = d.id AND v.text IS NOT NULL AND {OTHERWISE}
            AND (p.action IN ('mask', 'quarantine')
                 OR v.version = d.current_version AND (%(all)s OR v.screened IS NOT NULL)))
"""  # noqa: S608
COUNT = "SELECT count(*)" + STALE
TAKE = "SELECT d.id" + STALE + " ORDER BY d.id LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED"
# The bytes that the current text was read from, under the labels that are in force.
ADD_VERSIONS = """
    INSERT INTO versions (document_id, version, tenant_id, label_set_id, content_hash, blob_key, size, mime_type,
                          filename, title)
    SELECT d.id, d.latest_version + 1, d.tenant_id, d.label_set_id, v.content_hash, v.blob_key, v.size, v.mime_type,
           v.filename, v.title
    FROM documents d JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
    WHERE d.id = ANY(%s) RETURNING document_id, version
"""
SET_LATEST = "UPDATE documents SET latest_version = %s WHERE id = %s"
BARRED = f"""
    SELECT max(v.version) FROM versions v CROSS JOIN jsonb_each_text(%(policy)s) AS p (kind, action)
    WHERE v.document_id = %(document)s AND v.version < %(version)s AND v.text IS NOT NULL
      AND p.action IN ('mask', 'quarantine') AND {OTHERWISE}
"""  # noqa: S608
LOCK = "SELECT current_version FROM documents WHERE id = %s FOR UPDATE"
SAME_BYTES = """
    SELECT FROM versions one JOIN versions other USING (document_id, content_hash)
    WHERE one.document_id = %s AND one.version = %s AND other.version = %s
"""
TAKE_VERSIONS = "DELETE FROM versions WHERE document_id = %s AND version < %s"
TAKE_TEXT = "UPDATE documents SET current_version = NULL, oldest_version = %s, updated_at = now() WHERE id = %s"
UNTITLE = "UPDATE documents SET title = NULL WHERE id = %s AND current_version IS NULL"
HELD_BACK = """
    SELECT count(DISTINCT j.document_id) FROM jobs j JOIN documents d ON d.id = j.document_id
    WHERE j.tenant_id = %(tenant)s AND j.state = 'quarantined' AND j.error_code = 'sensitive_content'
      AND j.version = d.latest_version AND (%(source)s::uuid IS NULL OR d.source_id = %(source)s)
"""


def own(conn: Conn, tenant_id: UUID, source_id: UUID | None) -> Policy:
    """What the tenant, or one of its sources, says itself. Raises NotFound."""
    row = conn.execute(*_asked(tenant_id, source_id)).fetchone()
    if row is None:
        raise NotFound("there is no such source")
    return cast(Policy, row[0])


def in_force(conn: Conn, document_id: UUID, default: Policy) -> Policy:
    """The whole policy for a document, by its source, its tenant and the installation. A document that is gone: the
    installation's."""
    row = conn.execute(IN_FORCE, (document_id,)).fetchone()
    return {**default, **(row[0] if row else {})}


def change(conn: Conn, tenant_id: UUID, source_id: UUID | None, set_: Policy, unset: Sequence[Kind]) -> None:
    """For every document that is read from this commit on."""
    if source_id is None:
        conn.execute(CHANGE_TENANT, (list(unset), Jsonb(set_), tenant_id))
    else:
        conn.execute(CHANGE_SOURCE, (list(unset), Jsonb(set_), tenant_id, source_id))


def count_stale(conn: Conn, tenant_id: UUID, source_id: UUID | None, default: Policy, everything: bool) -> int:
    """How many documents have a text that was read under a policy which treated what it holds otherwise."""
    values = {"tenant": tenant_id, "source": source_id, "default": Jsonb(default), "all": everything}
    row = conn.execute(COUNT, values).fetchone()
    return int(row[0]) if row else 0


def count_held_back(conn: Conn, tenant_id: UUID, source_id: UUID | None) -> int:
    """How many documents' latest versions a policy keeps out of the index."""
    row = conn.execute(HELD_BACK, {"tenant": tenant_id, "source": source_id}).fetchone()
    return int(row[0]) if row else 0


def read_again(
    conn: Conn, tenant_id: UUID, source_id: UUID | None, default: Policy, everything: bool, limit: int
) -> int:
    """Add to up to `limit` stale documents a version of the same bytes, and the job that reads it; returns how many."""
    values = {"tenant": tenant_id, "source": source_id, "default": Jsonb(default), "all": everything, "limit": limit}
    taken = [document_id for (document_id,) in conn.execute(TAKE, values).fetchall()]
    for document_id, version in conn.execute(ADD_VERSIONS, (taken,)).fetchall():
        conn.execute(SET_LATEST, (version, document_id))
        jobs.add_index(conn, tenant_id, document_id, version)
    return len(taken)


def drop_barred(conn: Conn, document_id: UUID, version: int, policy: Policy) -> None:
    """Take away the versions before this one that hold what the policy now keeps from readers, and those before them.
    What cites them is told that they were removed; their bytes go with the next sweep."""
    values = {"document": document_id, "version": version, "policy": Jsonb(policy)}
    row = conn.execute(BARRED, values).fetchone()
    if row is not None and row[0] is not None:
        retention.remove_before(conn, document_id, row[0] + 1)


def withhold(conn: Conn, lease: Lease, code: str, reason: str) -> None:
    """The job's version stays out of the index: in quarantine. When the text that is read now is of the same bytes, it
    goes too, with all before it. Raises LeaseLost."""
    document_id, version = lease.job.document_id, lease.job.version
    assert document_id is not None and version is not None
    jobs.hold(conn, lease)
    row = conn.execute(LOCK, (document_id,)).fetchone()
    current = row and row[0]
    if current and conn.execute(SAME_BYTES, (document_id, version, current)).fetchone() is not None:
        erase.delete_index(conn, document_id)
        conn.execute(TAKE_TEXT, (version, document_id))
        conn.execute(TAKE_VERSIONS, (document_id, version))
        changes.log(conn, lease.job.tenant_id, document_id, None, "delete")
    conn.execute(UNTITLE, (document_id,))
    jobs.quarantine(conn, lease, code, reason)


def _asked(tenant_id: UUID, source_id: UUID | None) -> tuple[str, tuple[UUID, ...]]:
    return (OF_TENANT, (tenant_id,)) if source_id is None else (OF_SOURCE, (tenant_id, source_id))
