"""Scratch tenants, by the beginning of their name: what there are, and away with one, a part at a time.

A scratch tenant holds copies of what lies elsewhere, so its documents leave no tombstones. Its rows in the audit stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from store import changes
from store.pool import Conn
from store.tokens import tokens_table

ALL = """
    SELECT t.id, t.name, t.created_at, p.name AS profile,
           (SELECT count(*)::int FROM documents WHERE tenant_id = t.id) AS documents,
           (SELECT count(*)::int FROM chunks WHERE tenant_id = t.id) AS chunks
    FROM tenants t JOIN profiles p ON p.id = t.live_profile WHERE starts_with(t.name, %s) ORDER BY t.created_at, t.name
"""
SOME = "SELECT id FROM documents WHERE tenant_id = %s ORDER BY id LIMIT %s FOR UPDATE"
BLOBS = "SELECT DISTINCT blob_key FROM versions WHERE document_id = ANY(%s)"
DROP = "DELETE FROM {} WHERE {} = ANY(%s)"
# What has no foreign key to the tenant, and what refers to its label sets; the rest goes with its row.
LAST = (
    "DELETE FROM jobs WHERE tenant_id = %s",
    "DELETE FROM sources WHERE tenant_id = %s",
    "DELETE FROM change_log WHERE tenant_id = %s",
    "DELETE FROM label_set_chunks WHERE tenant_id = %s",
    "DELETE FROM label_set_changes WHERE tenant_id = %s",
    "DELETE FROM tombstones WHERE tenant_id = %s",
    "DELETE FROM label_sets WHERE tenant_id = %s",
    "DELETE FROM tenants WHERE id = %s",
)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch tenant and how much it holds."""

    id: UUID
    name: str
    created_at: datetime
    profile: str
    documents: int
    chunks: int


def scratches(conn: Conn, prefix: str) -> list[Scratch]:
    """The tenants whose name begins so, oldest first. As maintenance."""
    with conn.cursor(row_factory=class_row(Scratch)) as cursor:
        return cursor.execute(ALL, (prefix,)).fetchall()


def drop_some(conn: Conn, tenant_id: UUID, limit: int) -> tuple[int, Sequence[str]]:
    """Delete up to so many of the tenant's documents; returns how many, and the blobs that they referred to."""
    ids = [document_id for (document_id,) in conn.execute(SOME, (tenant_id, limit)).fetchall()]
    keys = [str(key) for (key,) in conn.execute(BLOBS, (ids,)).fetchall()]
    for (profile_id,) in conn.execute(changes.PROFILES).fetchall():
        for table in (changes.vectors_table(profile_id), tokens_table(profile_id)):
            conn.execute(sql.SQL(DROP).format(table, sql.Identifier("document_id")), (ids,))
    for name, column in (("chunks", "document_id"), ("versions", "document_id"), ("documents", "id")):
        conn.execute(sql.SQL(DROP).format(sql.Identifier(name), sql.Identifier(column)), (ids,))
    return len(ids), keys


def drop_tenant(conn: Conn, tenant_id: UUID) -> None:
    """Delete what is left of a tenant without documents."""
    for statement in LAST:
        conn.execute(statement.encode(), (tenant_id,))
