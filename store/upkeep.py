"""What wears with use: rows that nothing leads to, dead rows, and graphs that stand on many of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from store import changes, tokens
from store.calibrations import BYTES_A_CHUNK
from store.pool import Conn, Store, alone

LOCK = 0x55504B  # one upkeep at a time
NO_LIMIT = "SET LOCAL statement_timeout = 0"

# Chunks that no search can find: of a version that is not read, or under a profile that their tenant does not use.
IS_STRAY = """
    chunks c WHERE NOT EXISTS (
        SELECT FROM documents d WHERE d.id = c.document_id AND d.current_version = c.version)
    OR NOT EXISTS (
        SELECT FROM tenants t WHERE t.id = c.tenant_id AND t.live_profile = c.profile_id
        UNION ALL SELECT FROM kept_profiles k WHERE k.tenant_id = c.tenant_id AND k.profile_id = c.profile_id)
"""
COUNTED, DELETED = "SELECT count(*) FROM", "DELETE FROM"
COUNT_STRAYS, DELETE_STRAYS = COUNTED + IS_STRAY, DELETED + IS_STRAY
# Foreign keys let none come to be; a restore that went without them may.
IS_UNHELD = "{} v WHERE NOT EXISTS (SELECT FROM chunks c WHERE c.id = v.chunk_id)"

WORN = """
    SELECT s.relid::regclass::text, s.n_dead_tup, s.n_live_tup FROM pg_stat_user_tables s
    WHERE s.schemaname = 'public' AND s.n_dead_tup >= %(least)s
      AND s.n_dead_tup > %(share)s::float8 * (s.n_live_tup + s.n_dead_tup)
    ORDER BY 1
"""
GRAPHS = """
    SELECT i.indexrelid::regclass::text, i.indisvalid, a.atttypmod
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'embedding'
    WHERE i.indrelid = to_regclass(%s) AND m.amname = 'hnsw' ORDER BY 1
"""
MAY_MAINTAIN = """
    SELECT current_setting('server_version_num')::int >= 170000
       AND pg_has_role(current_user, (SELECT oid FROM pg_roles WHERE rolname = 'pg_maintain'), 'USAGE')
"""
VACUUM = "VACUUM (ANALYZE) {}"
REINDEX = "REINDEX INDEX CONCURRENTLY {}"


@dataclass(frozen=True, slots=True)
class Worn:
    """A table with many dead rows."""

    table: str  # as Postgres quotes it
    dead: int
    live: int


@contextmanager
def only_one(store: Store) -> Iterator[bool]:
    """Whether this is the only upkeep now. Raises StoreUnavailable."""
    with alone(store) as conn:
        row = conn.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        try:
            yield bool(row and row[0])
        finally:
            conn.execute("SELECT pg_advisory_unlock_all()")


def count_orphans(conn: Conn) -> dict[str, int]:
    """Rows that nothing leads to, by what they are."""
    conn.execute(NO_LIMIT)
    row = conn.execute(COUNT_STRAYS).fetchone()
    counts = {"chunks": int(row[0]) if row else 0, "vectors": 0, "codes": 0}
    for name, table in _narrow(conn):
        unheld = conn.execute(sql.SQL(COUNTED + " " + IS_UNHELD).format(table)).fetchone()
        counts[name] += int(unheld[0]) if unheld else 0
    return counts


def delete_orphans(conn: Conn) -> dict[str, int]:
    """Delete them; what hangs on a chunk goes with it, and is not counted again."""
    conn.execute(NO_LIMIT)
    counts = {"chunks": conn.execute(DELETE_STRAYS).rowcount, "vectors": 0, "codes": 0}
    for name, table in _narrow(conn):
        counts[name] += conn.execute(sql.SQL(DELETED + " " + IS_UNHELD).format(table)).rowcount
    return counts


def may_maintain(conn: Conn) -> bool:
    """Whether this role may vacuum and reindex what it does not own: from Postgres 17 on, where it was granted so."""
    row = conn.execute(MAY_MAINTAIN).fetchone()
    return bool(row and row[0])


def worn(conn: Conn, share: float, least: int) -> list[Worn]:
    """Tables of which more than this share, and at least so many rows, are dead, by the server's own statistics."""
    return [Worn(*row) for row in conn.execute(WORN, {"share": share, "least": least}).fetchall()]


def graphs_of(conn: Conn, table: str) -> list[tuple[str, bool, int]]:
    """(name, whether it is whole, dimensions) of the HNSW graphs on a table."""
    return [(name, valid, dimensions) for name, valid, dimensions in conn.execute(GRAPHS, (table,)).fetchall()]


def vacuum(conn: Conn, table: str) -> None:
    """Make the dead rows' room free, and the statistics fresh. `conn` is in no transaction."""
    conn.execute(sql.SQL(VACUUM).format(sql.SQL(table)))


def reindex(conn: Conn, graph: str, rows: int, dimensions: int) -> None:
    """Build the graph anew from what is alive, while searches go on. `conn` is in no transaction."""
    megabytes = max(64, rows * (2 * dimensions + BYTES_A_CHUNK) // 2**20)
    conn.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{megabytes}MB",))
    try:
        conn.execute(sql.SQL(REINDEX).format(sql.SQL(graph)))
    finally:
        conn.execute("RESET maintenance_work_mem")


def _narrow(conn: Conn) -> Iterator[tuple[str, sql.Identifier]]:
    for (profile_id,) in conn.execute(changes.PROFILES).fetchall():
        yield "vectors", changes.vectors_table(profile_id)
        yield "codes", tokens.tokens_table(profile_id)
