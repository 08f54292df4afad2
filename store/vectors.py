"""A profile's vectors: the nearest of them by either of two ways, and what tells which to take.

`nearest` scans what is visible, in the index alone. `nearest_by_graph` looks at what is nearest in the whole tenant by
its HNSW graph, and leaves out what is not visible. Both are under row-level security, with the caller's label sets in
the query.
"""

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from core.records import Candidate
from store.changes import vectors_table
from store.chunks import Scan
from store.pool import Conn

# A sum over label sets, not over rows; what a filter of the request's own leaves is counted up to a limit.
OUTLOOK = """
    SELECT (SELECT coalesce(sum(chunks), 0)::int FROM label_set_chunks
            WHERE profile_id = %(profile)s AND label_set_id = ANY(%(label_sets)s::int[])),
           c.exact_rows, c.ef_search,
           EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%(graph)s) AND indisvalid)
    FROM (VALUES (1)) one LEFT JOIN calibrations c ON c.tenant_id = %(tenant)s AND c.profile_id = %(profile)s
"""
ROWS_OF_ALL = "SELECT coalesce(sum(chunks), 0)::int FROM label_set_chunks WHERE tenant_id = %s AND profile_id = %s"
COUNT_MATCHING = """
    SELECT count(*) FROM (
        SELECT FROM {vectors} WHERE tenant_id = %(tenant)s AND label_set_id = ANY(%(label_sets)s::int[]) {filter}
        LIMIT %(limit)s) matching
"""
# `+ 0` keeps the planner off the graph; the settings keep it in the index (a filter's own tables apart), have it use
# the other cores for many rows, and compile nothing, which takes 100 ms.
EXACTLY = """
    SELECT set_config('jit', 'off', true), set_config('enable_bitmapscan', 'off', true),
           set_config('enable_seqscan', %(seqscan)s, true),
           set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true),
           CASE WHEN %(parallel)s THEN '' ELSE set_config('max_parallel_workers_per_gather', '0', true) END
"""
NEAREST = """
    SELECT chunk_id, (embedding <#> %(query)s) + 0 AS distance FROM {vectors}
    WHERE tenant_id = %(tenant)s AND label_set_id = ANY(%(label_sets)s::int[]) {filter}
    ORDER BY distance, chunk_id LIMIT %(k)s
"""
# An unknown or wrong setting would silently mean its default while pgvector is not loaded. The literal loads it before
# any is made, and then each is taken or is an error.
WALK = """
    SELECT '[0]'::halfvec(1), set_config('hnsw.iterative_scan', 'off', true),
           set_config('hnsw.ef_search', %s::text, true),
           set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)
"""
# The tenant stands in the statement, or the planner could not tell that its graph, a partial index, holds all rows.
NEAREST_ON_WALK = """
    SELECT chunk_id, embedding <#> %(query)s AS distance FROM {vectors}
    WHERE tenant_id = {tenant} AND label_set_id = ANY(%(label_sets)s::int[]) {filter}
    ORDER BY embedding <#> %(query)s LIMIT %(k)s
"""
PARALLEL_ROWS = 50_000  # from so many on, starting workers (2 to 5 ms) costs less than they save


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `citadel calibrate` found for a tenant's vectors on its machine."""

    exact_rows: int  # visible chunks that are scanned before the graph is tried
    ef_search: int  # neighbours that a walk in the graph looks at, 1 to 1000


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a search is faced with."""

    visible: int  # chunks; where the request has a filter, before it
    calibration: Calibration | None  # None too when there is no graph that is ready


def rows_of_all(conn: Conn, tenant_id: UUID, profile_id: int) -> int:
    """How many chunks of the profile there are, for whoever sees all counts."""
    row = conn.execute(ROWS_OF_ALL, (tenant_id, profile_id)).fetchone()
    assert row is not None
    return int(row[0])


def outlook(conn: Conn, scan: Scan) -> Outlook:
    """How much this scan would have to look at, and what is known of the ways to do so."""
    values = {**scan.values(), "profile": scan.profile_id, "graph": graph_name(scan.profile_id, scan.scope.tenant_id)}
    row = conn.execute(OUTLOOK, values, prepare=False).fetchone()
    assert row is not None
    visible, exact_rows, ef_search, ready = row
    return Outlook(visible, Calibration(exact_rows, ef_search) if ready and ef_search else None)


def count_matching(conn: Conn, scan: Scan, limit: int) -> int:
    """How many visible chunks the request's filter leaves, counted up to the limit."""
    statement = sql.SQL(COUNT_MATCHING).format(vectors=vectors_table(scan.profile_id), filter=scan.matching())
    row = conn.execute(statement, {**scan.values(), "limit": limit}, prepare=False).fetchone()
    return int(row[0]) if row else 0


def nearest(conn: Conn, scan: Scan, query: NDArray[np.float32], k: int, visible: int = 0) -> list[Candidate]:
    """The k visible chunks of largest inner product with `query` [dimensions]; `visible` says how many those may be."""
    conn.execute(EXACTLY, {"parallel": visible >= PARALLEL_ROWS, "seqscan": "off" if scan.where is None else "on"})
    statement = sql.SQL(NEAREST).format(vectors=vectors_table(scan.profile_id), filter=scan.matching())
    values = {**scan.values(), "query": HalfVector(query), "k": k}
    rows = conn.execute(statement, values, prepare=False).fetchall()  # a kept plan would not follow the settings
    return [Candidate(chunk_id, -distance) for chunk_id, distance in rows]


def nearest_by_graph(conn: Conn, scan: Scan, query: NDArray[np.float32], ef_search: int) -> list[Candidate]:
    """The visible chunks among those `ef_search` of the tenant that the graph finds nearest to `query`.

    Few mean that most of what is near the query is not visible. Raises what Postgres does for a setting that pgvector
    does not know: it is older than 0.8.
    """
    conn.execute(WALK, (ef_search,))
    statement = sql.SQL(NEAREST_ON_WALK).format(
        vectors=vectors_table(scan.profile_id), tenant=sql.Literal(scan.scope.tenant_id), filter=scan.matching()
    )
    rows = conn.execute(
        statement, {**scan.values(), "query": HalfVector(query), "k": ef_search}, prepare=False
    ).fetchall()
    found = [Candidate(chunk_id, -distance) for chunk_id, distance in rows]
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.chunk_id))


def graph_name(profile_id: int, tenant_id: UUID) -> str:
    """The index that is a tenant's graph."""
    return f"vectors_{profile_id}_graph_{tenant_id.hex}"
