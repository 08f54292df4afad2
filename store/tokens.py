"""Token codes: stored with a version's chunks, read by chunk id under row-level security.

A table a profile. It is read by id alone, so it follows its document's row, as `chunks` does.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from psycopg import sql

from store.pool import Conn

ADD = "INSERT INTO {} (chunk_id, document_id, code) SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::bytea[])"
READ = "SELECT chunk_id, code FROM {} WHERE chunk_id = ANY(%s)"
DELETE = "DELETE FROM {} WHERE document_id = %s"


def add(conn: Conn, profile_id: int, document_id: UUID, codes: Mapping[int, bytes]) -> None:
    """Store the codes of a document's chunks, by chunk id; an empty code is not stored."""
    kept = {chunk_id: code for chunk_id, code in codes.items() if code}
    values = (list(kept), [document_id] * len(kept), list(kept.values()))
    conn.execute(sql.SQL(ADD).format(tokens_table(profile_id)), values)


def read(conn: Conn, profile_id: int, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    """The codes of those chunks that have one and that this transaction's scope shows."""
    statement = sql.SQL(READ).format(tokens_table(profile_id))
    return dict(conn.execute(statement, (list(chunk_ids),), binary=True).fetchall())


def delete(conn: Conn, profile_id: int, document_id: UUID) -> int:
    """Delete the document's codes; returns how many there were."""
    return conn.execute(sql.SQL(DELETE).format(tokens_table(profile_id)), (document_id,)).rowcount


def tokens_table(profile_id: int) -> sql.Identifier:
    """The profile's narrow table of token codes."""
    return sql.Identifier(f"tokens_{profile_id}")
