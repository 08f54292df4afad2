"""Looking at rows: as maintenance, and as the application's role under a scope."""

from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from core.errors import NotFound
from core.records import Principal
from store import access, chunks, documents
from store.pool import reading_tenant, writing
from tests.conftest import World

CONTENT = ("documents", "versions", "chunks", "vectors_1", "tokens_1")
TENANTS_OWN = ("memberships", "clearances", "closed_subjects", "scim_users", "scim_groups", "label_sets", "sources",
               "change_log", "jobs")  # fmt: skip


def on(statement: LiteralString, table: str) -> sql.Composed:
    """The statement about that table."""
    return sql.SQL(statement).format(sql.Identifier(table))


def count(conn: psycopg.Connection, table: str) -> int:
    """How many rows the connection's role sees."""
    row = conn.execute(on("SELECT count(*) FROM {}", table)).fetchone()
    assert row is not None
    return int(row[0])


def fetch(world: World, query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
    """Rows as maintenance sees them."""
    with writing(world.store) as conn:
        return conn.execute(query, values).fetchall()


def read_text(world: World, subject: str, document_id: UUID, version: int | None = None) -> str | None:
    """A version's text as the subject reads it; None when there is none for it."""
    return read_text_as(world, world.who(subject), document_id, version)


def read_text_as(world: World, who: Principal, document_id: UUID, version: int | None = None) -> str | None:
    """The same of a principal with claims or limits."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, who)
        try:
            return documents.read_text(conn, document_id, version, 0, None).text
        except NotFound:
            return None


def indexed_text(world: World, subject: str, document_id: UUID) -> str | None:
    """The document's chunks as the subject finds them over the vectors; None when it finds none."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        scope = access.enter_scope(conn, world.who(subject))
        ids = chunks.visible_ids(conn, chunks.Scan(scope, world.profile.id))
        rows = chunks.read_rows(conn, [int(i) for i in ids]).values()
    return "\n".join(row.text for row in rows if row.document_id == document_id) or None


def readers(world: World, document_id: UUID, *subjects: str) -> dict[str, str]:
    """Who of the subjects reads the document's current text, and what that is: by its id and over the index alike."""
    found = {}
    for subject in subjects or ("user:hana", "user:sam", "user:otto"):
        text = read_text(world, subject, document_id)
        assert text == indexed_text(world, subject, document_id), subject
        if text is not None:
            found[subject] = text
    return found
