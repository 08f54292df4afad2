"""A profile's vectors: the nearest of them by either of two ways, and what tells which to take.

`nearest` scans what is visible, in the index alone. `nearest_by_graph` walks the tenant's HNSW graph until enough of
what it meets is visible; it may miss some. Both under row-level security, with the caller's label sets in the query.
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
           c.total, c.exact_rows, c.graph_share, c.ef_search,
           EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%(graph)s) AND indisvalid)
    FROM (VALUES (1)) one LEFT JOIN calibrations c ON c.tenant_id = %(tenant)s AND c.profile_id = %(profile)s
"""
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
# An unknown or wrong setting would silently mean off while pgvector is not loaded. The literal loads it before any is
# made, and then each is taken or is an error.
BY_GRAPH = """
    SELECT '[0]'::halfvec(1), set_config('hnsw.iterative_scan', 'relaxed_order', true),
           set_config('hnsw.ef_search', %(ef_search)s, true),
           set_config('hnsw.max_scan_tuples', %(max_tuples)s, true),
           set_config('hnsw.scan_mem_multiplier', '4', true),
           set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)
"""
# The tenant stands in the statement, or the planner could not tell that its graph, a partial index, holds all rows.
NEAREST_BY_GRAPH = """
    SELECT chunk_id, embedding <#> %(query)s AS distance FROM {vectors}
    WHERE tenant_id = {tenant} AND label_set_id = ANY(%(label_sets)s::int[]) {filter}
    ORDER BY embedding <#> %(query)s LIMIT %(k)s
"""
PARALLEL_ROWS = 50_000  # from so many on, starting workers (2 to 5 ms) costs less than they save
MAX_EF_SEARCH = 1000  # pgvector's own
MAX_SCAN_TUPLES = 40_000  # walked before a search gives up and scans


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `citadel calibrate` found for a tenant's vectors on its machine."""

    total: int  # the tenant's chunks
    exact_rows: int  # up to so many visible chunks, scanning them is as fast as the graph
    graph_share: float  # of all chunks, from which the graph finds what a scan finds; above 1: never
    ef_search: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a search is faced with."""

    visible: int  # chunks; where the request has a filter, before it
    calibration: Calibration | None
    has_graph: bool


def outlook(conn: Conn, scan: Scan) -> Outlook:
    """How much this scan would have to look at, and what is known of the ways to do so."""
    values = {**scan.values(), "profile": scan.profile_id, "graph": graph_name(scan.profile_id, scan.scope.tenant_id)}
    row = conn.execute(OUTLOOK, values, prepare=False).fetchone()
    assert row is not None
    visible, total, exact_rows, graph_share, ef_search, has_graph = row
    calibration = None if total is None else Calibration(total, exact_rows, graph_share, ef_search)
    return Outlook(visible, calibration, has_graph)


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


def nearest_by_graph(conn: Conn, scan: Scan, query: NDArray[np.float32], k: int, ef_search: int) -> list[Candidate]:
    """About the k visible chunks of largest inner product with `query`; fewer where the walk ended too soon.

    Raises what Postgres does when pgvector does not know a setting: it is older than 0.8.
    """
    wanted = {"ef_search": str(min(ef_search, MAX_EF_SEARCH)), "max_tuples": str(MAX_SCAN_TUPLES)}
    conn.execute(BY_GRAPH, wanted)
    statement = sql.SQL(NEAREST_BY_GRAPH).format(
        vectors=vectors_table(scan.profile_id), tenant=sql.Literal(scan.scope.tenant_id), filter=scan.matching()
    )
    rows = conn.execute(statement, {**scan.values(), "query": HalfVector(query), "k": k}, prepare=False).fetchall()
    found = [Candidate(chunk_id, -distance) for chunk_id, distance in rows]
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.chunk_id))


def graph_name(profile_id: int, tenant_id: UUID) -> str:
    """The index that is a tenant's graph."""
    return f"vectors_{profile_id}_graph_{tenant_id.hex}"
