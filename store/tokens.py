"""Token codes: stored with a version's chunks, read by chunk id under row-level security.

A table a profile. It is read by id alone, so it follows its document's row, as `chunks` does.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from psycopg import sql

from store.pool import Conn

ADD = "INSERT INTO {} (chunk_id, document_id, code) SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::bytea[])"
READ = "SELECT chunk_id, code FROM {} WHERE chunk_id = ANY(%s::bigint[])"
DELETE = "DELETE FROM {} WHERE document_id = %s"
# Of versions that are read; the others are not searched.
MISSING = """
    FROM chunks c JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    LEFT JOIN {} t ON t.chunk_id = c.id
    WHERE c.profile_id = %s AND c.id > %s AND t.chunk_id IS NULL
"""
SOME_MISSING = f"SELECT c.id, c.embed_prefix, c.text {MISSING} ORDER BY c.id LIMIT %s"
COUNT_MISSING = f"SELECT count(*) {MISSING}"
# Of chunks that are still there; and what is kept of searches ends, for they go by codes.
FILL = """
    WITH filled AS (
        INSERT INTO {} (chunk_id, document_id, code)
        SELECT w.id, c.document_id, w.code FROM unnest(%s::bigint[], %s::bytea[]) AS w (id, code)
        JOIN chunks c ON c.id = w.id
        ON CONFLICT (chunk_id) DO NOTHING RETURNING document_id
    )
    INSERT INTO label_set_changes (tenant_id, label_set_id)
    SELECT DISTINCT d.tenant_id, d.label_set_id FROM documents d JOIN filled f ON f.document_id = d.id
"""


def add(conn: Conn, profile_id: int, document_id: UUID, codes: Mapping[int, bytes]) -> None:
    """Store the codes of a document's chunks, by chunk id; an empty code is not stored."""
    kept = {chunk_id: code for chunk_id, code in codes.items() if code}
    values = (list(kept), [document_id] * len(kept), list(kept.values()))
    conn.execute(sql.SQL(ADD).format(tokens_table(profile_id)), values)


def read(conn: Conn, profile_id: int, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    """The codes of those chunks that have one and that this transaction's scope shows."""
    statement = sql.SQL(READ).format(tokens_table(profile_id))
    return dict(conn.execute(statement, (list(chunk_ids),), binary=True, prepare=True).fetchall())


def count_missing(conn: Conn, profile_id: int) -> int:
    """How many of the profile's chunks have no code. As maintenance."""
    row = conn.execute(sql.SQL(COUNT_MISSING).format(tokens_table(profile_id)), (profile_id, 0)).fetchone()
    return int(row[0]) if row else 0


def missing(conn: Conn, profile_id: int, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(chunk id, embed_prefix, text) of chunks behind that id without a code, in the order of their ids."""
    statement = sql.SQL(SOME_MISSING).format(tokens_table(profile_id))
    return [(i, p, t) for i, p, t in conn.execute(statement, (profile_id, after, limit)).fetchall()]


def fill(conn: Conn, profile_id: int, codes: Mapping[int, bytes]) -> None:
    """Store codes of chunks that have none, by chunk id; an empty code is not stored."""
    kept = {chunk_id: code for chunk_id, code in codes.items() if code}
    conn.execute(sql.SQL(FILL).format(tokens_table(profile_id)), (list(kept), list(kept.values())))


def delete(conn: Conn, profile_id: int, document_id: UUID) -> int:
    """Delete the document's codes; returns how many there were."""
    return conn.execute(sql.SQL(DELETE).format(tokens_table(profile_id)), (document_id,)).rowcount


def tokens_table(profile_id: int) -> sql.Identifier:
    """The profile's narrow table of token codes."""
    return sql.Identifier(f"tokens_{profile_id}")
