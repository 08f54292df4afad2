"""Where does something still stand? Looks through every table for a document's id, or for a string of its content."""

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from psycopg import sql

from store.pool import Conn

# Those that may keep an erased document's id, for they tell of it and not what it said.
LEDGERS = ("tombstones", "change_log", "jobs", "audit_log")
# Of every table, the columns that can hold text; vectors, their codes and figures cannot.
COLUMNS = """
    SELECT c.oid::regclass::text, c.relname, coalesce(array_agg(a.attname ORDER BY a.attnum)
        FILTER (WHERE t.typcategory NOT IN ('N', 'B', 'D', 'T') AND t.typname NOT IN ('halfvec', 'xid8')
        AND NOT (c.relname ~ '^tokens_' AND a.attname = 'code')), '{}')
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    GROUP BY c.oid, c.relname ORDER BY 1
"""
HOLDS = "SELECT count(*) FROM {} WHERE {}"
NO_LIMIT = "SET LOCAL statement_timeout = 0"  # a whole database is read


def traces(conn: Conn, document_id: UUID, canary: str | None) -> dict[str, int]:
    """Rows by table that hold the canary, or, outside of the ledgers, the document's id; empty when there are none.

    Runs as a role that sees every row; what it may not read is an error of Postgres, never passed over.
    """
    conn.execute(NO_LIMIT)
    found = {}
    for place, name, columns in conn.execute(COLUMNS).fetchall():
        wanted = [*(_as_stored(canary) if canary else ())]
        if not name.startswith(LEDGERS):
            wanted.append(str(document_id))
        if wanted and columns and (rows := _rows_with(conn, place, columns, wanted)):
            found[str(place)] = rows
    return found


def files_with(folder: Path, wanted: bytes, leave_out: Sequence[str] = ()) -> list[str]:
    """Paths of the files in a folder, but not below those of its entries, that hold these bytes."""
    kept = (entry for entry in sorted(folder.iterdir()) if entry.name not in leave_out)
    return [str(file) for entry in kept for file in _files(entry) if _holds(file, wanted)]


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir() and not place.is_symlink():
        for entry in sorted(place.iterdir()):
            yield from _files(entry)
    elif place.is_file():
        yield place


def _holds(file: Path, wanted: bytes) -> bool:
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(wanted) >= 0


def _as_stored(canary: str) -> set[str]:
    """The string as it is, as JSON and arrays write it, and as bytea shows it."""
    return {canary, json.dumps(canary, ensure_ascii=False)[1:-1], canary.encode().hex()}


def _rows_with(conn: Conn, place: str, columns: Sequence[str], wanted: Sequence[str]) -> int:
    conditions = [
        sql.SQL("strpos({}::text, {}) > 0").format(sql.Identifier(column), sql.Literal(each))
        for column in columns
        for each in wanted
    ]
    # the place is as Postgres quotes it
    statement = sql.SQL(HOLDS).format(sql.SQL(place), sql.SQL(" OR ").join(conditions))
    row = conn.execute(statement).fetchone()
    return int(row[0]) if row else 0
