"""Golden sets as they are kept: versions of a name, each a list of questions as the native file writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.pool import Conn, one_row

COLUMNS = """
    SELECT s.id, s.name, s.version, s.digest, s.created_at,
           (SELECT count(*) FROM golden_queries q WHERE q.golden_id = s.id) AS questions
    FROM golden_sets s WHERE s.tenant_id = %s
"""
BY_DIGEST = COLUMNS + " AND s.name = %s AND s.digest = %s"
BY_ID = COLUMNS + " AND s.id = %s"
NEWEST = COLUMNS + " AND s.name = %s AND (%s::int IS NULL OR s.version = %s) ORDER BY s.version DESC LIMIT 1"
ALL = COLUMNS + " ORDER BY s.name, s.version"
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
ADD = """
    INSERT INTO golden_sets (tenant_id, name, version, digest)
    SELECT %(tenant)s, %(name)s, coalesce(max(version), 0) + 1, %(digest)s FROM golden_sets
    WHERE tenant_id = %(tenant)s AND name = %(name)s
    RETURNING id
"""
ADD_LINES = """
    INSERT INTO golden_queries (golden_id, tenant_id, ordinal, line)
    SELECT %s, %s, ordinality, value FROM jsonb_array_elements(%s) WITH ORDINALITY
"""
LINES = "SELECT line FROM golden_queries WHERE golden_id = %s ORDER BY ordinal"
DELETE = "DELETE FROM golden_sets WHERE tenant_id = %s AND id = %s"
# What each judgement says, against the documents that the transaction sees; `times` the quote stands there.
STANDING = """
    SELECT w.n, d.id AS document_id, d.current_version AS version, length(v.text) AS length,
           CASE WHEN w.quote <> '' THEN (length(v.text) - length(replace(v.text, w.quote, ''))) / length(w.quote) END
               AS times,
           CASE WHEN w.quote <> '' THEN nullif(strpos(v.text, w.quote), 0) - 1 END AS at,
           (SELECT max((e ->> 'page')::int) FROM jsonb_array_elements(v.elements) e) AS pages
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS w (name, quote, n)
    JOIN documents d ON d.tenant_id = %s AND d.external_id = w.name
    JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
"""
FACTS = """
    SELECT d.external_id, s.name, coalesce(v.mime_type, '?'), v.language
    FROM documents d JOIN sources s ON s.id = d.source_id
    JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
    WHERE d.tenant_id = %s AND d.external_id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class StoredGolden:
    """One version of a golden set, without its questions."""

    id: UUID
    name: str
    version: int
    digest: str
    created_at: datetime
    questions: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a judgement's document and quote, in one document of that name."""

    n: int  # the judgement's place among those asked for, from 1
    document_id: UUID
    version: int
    length: int  # of the canonical text
    times: int | None  # that the quote stands in it; None without a quote
    at: int | None  # where it stands first
    pages: int | None  # the last page; None where the format has none


def keep(conn: Conn, tenant_id: UUID, name: str, digest: str, lines: Sequence[Mapping[str, Any]]) -> StoredGolden:
    """The version of that digest, added as the name's next one when it is new."""
    conn.execute(ONE_AT_A_TIME, (f"golden {tenant_id} {name}",))
    with conn.cursor(row_factory=class_row(StoredGolden)) as cursor:
        found = cursor.execute(BY_DIGEST, (tenant_id, name, digest)).fetchone()
        if found is None:
            row = conn.execute(ADD, {"tenant": tenant_id, "name": name, "digest": digest}).fetchone()
            assert row is not None
            conn.execute(ADD_LINES, (row[0], tenant_id, Jsonb(list(lines))))
            found = cursor.execute(BY_ID, (tenant_id, row[0])).fetchone()
        assert found is not None
        return found


def named(conn: Conn, tenant_id: UUID, name: str, version: int | None = None) -> StoredGolden:
    """The newest version of the name, or the one asked for. Raises NotFound."""
    told = name if version is None else f"{name}@{version}"
    otherwise = f"there is no golden set {told!r}: `citadel golden list` shows them, `golden import` adds one"
    return one_row(conn, StoredGolden, NEWEST, (tenant_id, name, version, version), otherwise)


def numbered(name: str) -> tuple[str, int | None]:
    """NAME@VERSION as both; a name alone, which may hold an @ itself, has no version."""
    base, at, version = name.rpartition("@")
    return (base, int(version)) if at and version.isascii() and version.isdecimal() else (name, None)


def by_id(conn: Conn, tenant_id: UUID, golden_id: UUID) -> StoredGolden:
    """The set of that id. Raises NotFound."""
    return one_row(conn, StoredGolden, BY_ID, (tenant_id, golden_id), "there is no such golden set")


def listed(conn: Conn, tenant_id: UUID) -> list[StoredGolden]:
    """Every version of every set, by name."""
    with conn.cursor(row_factory=class_row(StoredGolden)) as cursor:
        return cursor.execute(ALL, (tenant_id,)).fetchall()


def lines(conn: Conn, golden_id: UUID) -> list[dict[str, Any]]:
    """The set's questions in order; an erased document's judgements are gone from them."""
    return [row[0] for row in conn.execute(LINES, (golden_id,)).fetchall()]


def delete(conn: Conn, tenant_id: UUID, golden_id: UUID) -> None:
    """The set leaves, and its runs with it."""
    conn.execute(DELETE, (tenant_id, golden_id))


def standing(conn: Conn, tenant_id: UUID, judged: Sequence[tuple[str, str | None]]) -> list[Standing]:
    """Each (external id, quote) in each document of that name which the transaction sees and which is indexed."""
    names, quotes = [name for name, _ in judged], [quote or "" for _, quote in judged]
    with conn.cursor(row_factory=class_row(Standing)) as cursor:
        return cursor.execute(STANDING, (names, quotes, tenant_id)).fetchall()


def facts(conn: Conn, tenant_id: UUID, external_ids: Sequence[str]) -> dict[str, tuple[str, str, str | None]]:
    """Source, type and language of each document that the transaction sees."""
    rows = conn.execute(FACTS, (tenant_id, list(external_ids))).fetchall()
    return {name: (source, mime_type, language) for name, source, mime_type, language in rows}
