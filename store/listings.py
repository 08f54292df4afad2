"""What a refresh has listed of a source, and how that compares with what is held: in batches, whatever its size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.records import Source
from store.pool import Conn

MAX_PROBLEMS = 100  # kept; the counts tell how many there were

DROP_OTHERS = "DELETE FROM listings WHERE source_id = %s AND run <> %s"
BEGIN = "INSERT INTO listings (source_id, tenant_id, run) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
HEAD = """
    SELECT source_id, run, began_at, cursor, ended, complete, state, done_to, counts, problems
    FROM listings WHERE source_id = %s
"""
ADD = """
    INSERT INTO listed (source_id, tenant_id, external_id, fingerprint, note)
    SELECT DISTINCT ON (i.external_id) %(source)s, %(tenant)s, i.external_id, i.fingerprint, i.note
    FROM unnest(%(ids)s::text[], %(fingerprints)s::text[], %(notes)s::text[]) WITH ORDINALITY
         AS i (external_id, fingerprint, note, place)
    ORDER BY i.external_id, i.place DESC
    ON CONFLICT (source_id, external_id) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, note = EXCLUDED.note
"""
SET_CURSOR = """
    UPDATE listings SET cursor = %s, problems = (problems || %s::text[])[:%s], counts = %s WHERE source_id = %s
"""
END = "UPDATE listings SET ended = true, complete = %s, state = %s WHERE source_id = %s"
BATCH = """
    SELECT l.external_id, l.fingerprint, l.note, d.id AS document_id, d.fingerprint AS seen_fingerprint, d.permissions,
           v.blob_key, d.latest_version
    FROM listed l
    LEFT JOIN documents d ON d.source_id = l.source_id AND d.external_id = l.external_id AND d.parent_id IS NULL
    LEFT JOIN versions v ON v.document_id = d.id AND v.version = d.latest_version
    WHERE l.source_id = %(source)s AND (%(after)s::text IS NULL OR l.external_id > %(after)s)
    ORDER BY l.external_id LIMIT %(limit)s
"""
ADVANCE = """
    UPDATE listings SET done_to = %s, counts = %s, problems = (problems || %s::text[])[:%s] WHERE source_id = %s
"""
TOTAL = """
    SELECT count(*) FROM documents d JOIN listings h USING (source_id)
    WHERE source_id = %s AND d.created_at < h.began_at AND d.parent_id IS NULL
"""
# A document that came since the listing began is not missing from it, nor is an attachment: it goes with its message.
MISSING = """
    FROM documents d JOIN listings h ON h.source_id = d.source_id
    WHERE d.source_id = %(source)s AND d.created_at < h.began_at AND d.parent_id IS NULL
      AND NOT EXISTS (SELECT FROM listed l WHERE l.source_id = d.source_id AND l.external_id = d.external_id)
"""
AMONG_MISSING = """
    AND EXISTS (SELECT FROM versions v WHERE v.document_id = d.id AND v.version = d.latest_version
                AND v.blob_key = %(blob)s)
    ORDER BY d.external_id COLLATE "C" LIMIT 50
"""
COUNT, IDS, NAMES, SOME = "SELECT count(*)", "SELECT d.id", "SELECT d.id, d.external_id", "LIMIT %(limit)s"
COUNT_MISSING, MISSING_IDS, MOVED_FROM = COUNT + MISSING, IDS + MISSING + SOME, NAMES + MISSING + AMONG_MISSING
DROP = "DELETE FROM listings WHERE source_id = %s"


@dataclass(frozen=True, slots=True)
class Listing:
    """How far a refresh is."""

    source_id: UUID
    run: UUID
    began_at: datetime
    cursor: str | None
    ended: bool
    complete: bool
    state: dict[str, Any]
    done_to: str | None
    counts: dict[str, int]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A listed item, beside what is held of it."""

    external_id: str
    fingerprint: str | None
    note: str
    document_id: UUID | None  # None: nothing is held
    seen_fingerprint: str | None
    permissions: str | None  # digest of the labels that the source last gave
    blob_key: str | None  # of the latest version
    latest_version: int | None


def begin(conn: Conn, source: Source, run: UUID) -> Listing:
    """This run's listing, as far as it has come; another run's is dropped."""
    conn.execute(DROP_OTHERS, (source.id, run))
    conn.execute(BEGIN, (source.id, source.tenant_id, run))
    return head(conn, source.id)


def head(conn: Conn, source_id: UUID) -> Listing:
    """How far the source's refresh is."""
    with conn.cursor(row_factory=class_row(Listing)) as cursor:
        found = cursor.execute(HEAD, (source_id,)).fetchone()
    assert found is not None, "begun before"
    return found


def add(
    conn: Conn, source: Source, items: Sequence[tuple[str, str | None, str]], cursor: str | None,
    problems: Sequence[str], counts: Mapping[str, int],
) -> None:  # fmt: skip
    """Write down a page of (external id, fingerprint, note); an item that is listed twice counts as it was last."""
    ids, fingerprints, notes = ([item[place] for item in items] for place in range(3))
    conn.execute(ADD, {"source": source.id, "tenant": source.tenant_id, "ids": ids, "fingerprints": fingerprints,
                       "notes": notes})  # fmt: skip
    conn.execute(SET_CURSOR, (cursor, list(problems), MAX_PROBLEMS, Jsonb(counts), source.id))


def end(conn: Conn, source_id: UUID, complete: bool, state: Mapping[str, Any]) -> None:
    """Nothing more is listed."""
    conn.execute(END, (complete, Jsonb(dict(state)), source_id))


def batch(conn: Conn, source_id: UUID, after: str | None, limit: int) -> list[ListedDocument]:
    """The next listed items in their order."""
    with conn.cursor(row_factory=class_row(ListedDocument)) as cursor:
        return cursor.execute(BATCH, {"source": source_id, "after": after, "limit": limit}).fetchall()


def advance(conn: Conn, source_id: UUID, done_to: str, counts: Mapping[str, int], problems: Sequence[str]) -> None:
    """Items up to this one are done."""
    conn.execute(ADVANCE, (done_to, Jsonb(counts), list(problems), MAX_PROBLEMS, source_id))


def moved_from(conn: Conn, source_id: UUID, blob_key: str) -> list[tuple[UUID, str]]:
    """(id, external id) of some missing documents of the same bytes, in the order of their names."""
    return [(i, name) for i, name in conn.execute(MOVED_FROM, {"source": source_id, "blob": blob_key}).fetchall()]


def missing(conn: Conn, source_id: UUID) -> tuple[int, int]:
    """How many documents are not listed, and of how many."""
    gone = conn.execute(COUNT_MISSING, {"source": source_id}).fetchone()
    total = conn.execute(TOTAL, (source_id,)).fetchone()
    assert gone is not None and total is not None
    return int(gone[0]), int(total[0])


def missing_ids(conn: Conn, source_id: UUID, limit: int) -> list[UUID]:
    """Some of the documents that are not listed."""
    return [row[0] for row in conn.execute(MISSING_IDS, {"source": source_id, "limit": limit}).fetchall()]


def drop(conn: Conn, source_id: UUID) -> None:
    """The refresh is over."""
    conn.execute(DROP, (source_id,))
