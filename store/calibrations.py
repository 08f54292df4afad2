"""A tenant's graph, what was measured of it, and the upkeep of the counts that searches are routed by."""

from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from core.records import Profile
from store.changes import vectors_table
from store.pool import Conn, Store, writing
from store.vectors import Calibration, graph_name

# Maintenance sees every row.
COUNTS = """
    SELECT label_set_id, sum(chunks)::int FROM label_set_chunks
    WHERE tenant_id = %s AND profile_id = %s GROUP BY label_set_id HAVING sum(chunks) > 0 ORDER BY label_set_id
"""
SAVE = """
    INSERT INTO calibrations (tenant_id, profile_id, exact_rows, ef_search, measured) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (tenant_id, profile_id) DO UPDATE SET exact_rows = excluded.exact_rows,
        ef_search = excluded.ef_search, measured = excluded.measured, at = now()
"""
SAMPLE = "SELECT embedding FROM {} WHERE tenant_id = %s ORDER BY hashint8(chunk_id + %s) LIMIT %s"
# Rows that are added meanwhile are not seen, and stay; of two that fold at once the second finds the first's rows gone.
FOLD = """
    WITH grown AS (
        SELECT DISTINCT profile_id, label_set_id FROM label_set_chunks WHERE NOT folded
    ), gone AS (
        DELETE FROM label_set_chunks c USING grown g
        WHERE c.profile_id = g.profile_id AND c.label_set_id = g.label_set_id RETURNING c.*
    ), kept AS (
        INSERT INTO label_set_chunks (tenant_id, profile_id, label_set_id, chunks, folded)
        SELECT tenant_id, profile_id, label_set_id, sum(chunks), true FROM gone GROUP BY 1, 2, 3 HAVING sum(chunks) <> 0
    )
    SELECT count(*) FROM gone
"""
BUILT = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
DROP = "DROP INDEX CONCURRENTLY IF EXISTS {}"
# One graph a tenant: a walk meets no other tenant's rows, and nothing of them moves what it finds.
BUILD = """
    CREATE INDEX CONCURRENTLY {name} ON {vectors} USING hnsw (embedding halfvec_ip_ops)
    WITH (m = 16, ef_construction = 128) WHERE tenant_id = {tenant}
"""
BYTES_A_CHUNK = 600  # of a graph, beside the vector: with less memory than it needs, building is many times slower


def build_graph(admin_url: str, profile: Profile, tenant_id: UUID, rows: int) -> bool:
    """Build the tenant's graph while readers and writers go on; False when it stands already.

    `admin_url` connects as a role that may become the owner.
    """
    name = graph_name(profile.id, tenant_id)
    statement = sql.SQL(BUILD).format(
        name=sql.Identifier(name), vectors=vectors_table(profile.id), tenant=sql.Literal(tenant_id)
    )
    megabytes = max(64, rows * (2 * profile.dimensions + BYTES_A_CHUNK) // 2**20)
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("SET ROLE citadel_owner")
        built = conn.execute(BUILT, (name,)).fetchone()
        if built and built[0]:
            return False
        conn.execute(sql.SQL(DROP).format(sql.Identifier(name)))  # what an interrupted build left
        conn.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{megabytes}MB",))
        conn.execute(statement)
    return True


def drop_graph(admin_url: str, profile_id: int, tenant_id: UUID) -> None:
    """Do without the tenant's graph: searches scan."""
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("SET ROLE citadel_owner")
        conn.execute(sql.SQL(DROP).format(sql.Identifier(graph_name(profile_id, tenant_id))))


def vacuum_vectors(admin_url: str, profile_id: int) -> None:
    """Have every page known to be visible, so that scans stay in the index, and the statistics fresh."""
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("SET ROLE citadel_owner")
        conn.execute(sql.SQL("VACUUM (ANALYZE) {}").format(vectors_table(profile_id)))


def counts(conn: Conn, tenant_id: UUID, profile_id: int) -> dict[int, int]:
    """Chunks by label set, of those that have any. As maintenance."""
    return {label_set: n for label_set, n in conn.execute(COUNTS, (tenant_id, profile_id)).fetchall()}


def sample(conn: Conn, tenant_id: UUID, profile_id: int, size: int, seed: int) -> list[Any]:
    """Up to `size` of the tenant's vectors, in an order that the seed decides. As maintenance."""
    statement = sql.SQL(SAMPLE).format(vectors_table(profile_id))
    return [vector for (vector,) in conn.execute(statement, (tenant_id, seed, size)).fetchall()]


def save(conn: Conn, tenant_id: UUID, profile_id: int, found: Calibration, measured: list[dict[str, Any]]) -> None:
    """Route the tenant's searches by this from now on. As maintenance."""
    values = (tenant_id, profile_id, found.exact_rows, found.ef_search, Jsonb(measured))
    conn.execute(SAVE, values)


def keep_counts(store: Store) -> int:
    """Upkeep: one row for each label set. Returns how many were folded."""
    with writing(store) as conn:
        row = conn.execute(FOLD).fetchone()
        return int(row[0]) if row else 0
