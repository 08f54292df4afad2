"""The dense leg: the way to the nearest vectors, chosen by what the caller can see.

Few visible chunks are scanned, which is exact and the same whatever else there is. When most of a large tenant's chunks
are visible, its graph is as good and many times faster. In between a graph's walk meets too little of what is visible
(at 20 % it finds 0.93 of the nearest 50 in twice the time of a scan): that is scanned too, on more than one core.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.records import Candidate
from store import vectors
from store.chunks import Scan
from store.pool import Conn
from store.vectors import Outlook

Route = Literal["exact", "graph"]


@dataclass(frozen=True, slots=True)
class Nearest:
    """What the leg found for each query, and how."""

    lists: list[list[Candidate]]
    route: Route
    visible: int  # chunks that were there to find; with a filter, at most so many
    shortfall: int  # chunks that the graph fell short of and a scan supplied

    def detail(self) -> dict[str, Any]:
        """For `activity`. A walk in the graph does not say how many rows it met."""
        scanned = {} if self.route == "graph" and not self.shortfall else {"scanned": self.visible}
        return {"route": self.route, **scanned, "shortfall": self.shortfall}


def choose_route(outlook: Outlook, visible: int) -> Route:
    """`visible` is what the request's filter leaves of the outlook's. Without a calibration everything is scanned."""
    known = outlook.calibration
    if known is None or not outlook.has_graph or visible <= known.exact_rows:
        return "exact"
    return "graph" if visible >= known.graph_share * known.total else "exact"


def nearest_each(conn: Conn, scan: Scan, queries: Sequence[NDArray[np.float32]], k: int) -> Nearest:
    """The visible chunks nearest to each query: k of them or all that there are, never fewer."""
    outlook = vectors.outlook(conn, scan)
    visible = _matching(conn, scan, outlook)
    if choose_route(outlook, visible) == "graph" and outlook.calibration:
        return _by_graph(conn, scan, queries, k, visible, outlook.calibration.ef_search)
    return Nearest([vectors.nearest(conn, scan, query, k, visible) for query in queries], "exact", visible, 0)


def _matching(conn: Conn, scan: Scan, outlook: Outlook) -> int:
    """How many chunks a filter leaves; where that changes nothing about the route, how many there are before it."""
    known = outlook.calibration
    if scan.where is None or known is None or choose_route(outlook, outlook.visible) == "exact":
        return outlook.visible
    enough = max(known.exact_rows + 1, math.ceil(known.graph_share * known.total))
    return vectors.count_matching(conn, scan, enough)


def _by_graph(
    conn: Conn, scan: Scan, queries: Sequence[NDArray[np.float32]], k: int, visible: int, ef_search: int
) -> Nearest:
    lists = [vectors.nearest_by_graph(conn, scan, query, k, ef_search) for query in queries]
    wanted = min(k, visible)
    missing = [max(0, wanted - len(found)) for found in lists]
    for place, short in enumerate(missing):
        if short:
            lists[place] = vectors.nearest(conn, scan, queries[place], k, visible)
    return Nearest(lists, "graph", visible, sum(missing))
