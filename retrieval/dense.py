"""The dense leg: the way to the nearest vectors.

Where this host has a replica with vectors, all that the caller sees is scanned there, exactly. Else Postgres is asked,
in a way that is chosen by what the caller can see.

Few visible chunks are scanned, which is exact, and the same whatever else there is. Among many, the tenant's graph is
asked for what is nearest, visible or not. Where enough of that is visible, as for those who see most of the tenant or
ask about their own part of it, the graph has answered. Where it is not, the rest is beyond what a graph finds (with a
fifth visible at random, walking on took twice the time of a scan and found 0.93 of the nearest 50): that is scanned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.records import Candidate
from retrieval.lexical import Sight
from store import vectors
from store.chunks import Scan
from store.pool import Conn
from store.vectors import Calibration, Outlook

DEPTH = 100  # candidates: fused with BM25, nDCG@10 on SciFact is 0.715, 0.717, 0.714 with 50, 100, 200
NEAR = 0.4  # share of what a walk looks at that must be visible: at 0.1, it found 0.94 of the nearest 50 and not all

Route = Literal["replica", "exact", "graph", "graph+exact"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the leg found for each query, and how."""

    lists: list[list[Candidate]]
    route: Route
    visible: int  # chunks that there were to find, before the request's filter
    shortfall: int  # visible chunks that walks lacked to be trusted, over all queries: a scan answered those

    def detail(self) -> dict[str, Any]:
        """For `activity`. A walk in the graph does not say how many rows it met."""
        scanned = {} if self.route == "graph" else {"scanned": self.visible}
        return {"route": self.route, **scanned, "shortfall": self.shortfall}


def nearest_in(sight: Sight, queries: Sequence[NDArray[np.float32]], k: int = DEPTH) -> Found:
    """The visible chunks nearest to each query, by this host's replica: k of them or all that there are."""
    return Found(sight.nearest(queries, k), "replica", sight.visible, 0)


def choose_route(visible: int, calibration: Calibration | None) -> Route:
    """Which way to try first. Without a graph that is ready and calibrated, everything is scanned."""
    return "exact" if calibration is None or visible <= calibration.exact_rows else "graph"


def nearest_each(conn: Conn, scan: Scan, queries: Sequence[NDArray[np.float32]], k: int = DEPTH) -> Found:
    """The visible chunks nearest to each query: k of them or all that there are, never fewer."""
    outlook = vectors.outlook(conn, scan)
    known = outlook.calibration
    if known is None or choose_route(_visible(conn, scan, outlook, known), known) == "exact":
        return Found([vectors.nearest(conn, scan, q, k, outlook.visible) for q in queries], "exact", outlook.visible, 0)
    lists = [vectors.nearest_by_graph(conn, scan, query, known.ef_search) for query in queries]
    wanted = min(outlook.visible, enough(k, known.ef_search))
    missing = [max(0, wanted - len(found)) for found in lists]
    lists = [found[:k] for found in lists]
    for place in [place for place, short in enumerate(missing) if short]:
        lists[place] = vectors.nearest(conn, scan, queries[place], k, outlook.visible)
    return Found(lists, "graph+exact" if any(missing) else "graph", outlook.visible, sum(missing))


def enough(k: int, ef_search: int) -> int:
    """How many visible chunks a walk of that width must meet for its first k to be trusted."""
    return max(k, math.ceil(NEAR * ef_search))


def _visible(conn: Conn, scan: Scan, outlook: Outlook, known: Calibration) -> int:
    """What the request's filter leaves, as far as the route depends on it."""
    if scan.where is None or outlook.visible <= known.exact_rows:
        return outlook.visible
    return vectors.count_matching(conn, scan, known.exact_rows + 1)
