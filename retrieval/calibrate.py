"""`citadel calibrate`: from where on a tenant's graph finds what a scan finds, and is faster. Measured on its vectors.

Who sees what share of a tenant is tried with label sets drawn at random until they hold that share; questions are
stored vectors, moved aside, so that none is its own answer.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.records import AccessScope, Candidate, Profile
from store import calibrations, vectors
from store.chunks import Scan
from store.pool import Conn, Store, reading_tenant, set_scope, writing
from store.vectors import Calibration

GRAPH_FROM = 20_000  # chunks: below, everything is scanned in some 10 ms
SHARES = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
EF_SEARCH = (100, 200, 400)
RECALL = 0.98  # of the nearest 10 and of the nearest 50, that a graph must reach
K = 200
QUESTIONS = 30
ASIDE = 0.5  # length of what is added to a unit vector: cosine 0.9 to the vector itself

Way = Callable[[Conn, NDArray[np.float32]], list[Candidate]]


@dataclass(frozen=True, slots=True)
class Point:
    """Scan and graph where this share of the tenant is visible; medians in milliseconds."""

    share: float
    visible: int
    ef_search: int
    exact_ms: float
    graph_ms: float
    recall_at_10: float
    recall_at_50: float

    @property
    def good(self) -> bool:
        """Whether the graph may answer here."""
        return min(self.recall_at_10, self.recall_at_50) >= RECALL


@dataclass(frozen=True, slots=True)
class Trial:
    """A tenant's vectors, and the questions that all points are measured with."""

    store: Store
    tenant: AccessScope  # names the tenant; its label sets are not used
    profile: Profile
    held: Mapping[int, int]  # chunks by label set
    questions: Sequence[NDArray[np.float32]]
    seed: int

    def point(self, share: float, ef_search: int) -> Point:
        """Ask every question both ways, as somebody who sees this share."""
        drawn = label_sets_of(self.held, share, self.seed)
        visible = sum(self.held[label_set] for label_set in drawn)
        scan = Scan(replace(self.tenant, label_set_ids=drawn), self.profile.id)
        graph, graph_ms = self._ask(scan, lambda conn, q: vectors.nearest_by_graph(conn, scan, q, K, ef_search))
        exact, exact_ms = self._ask(scan, lambda conn, q: vectors.nearest(conn, scan, q, K, visible))
        recall = _recall(exact, graph, 10), _recall(exact, graph, 50)
        return Point(round(visible / sum(self.held.values()), 4), visible, ef_search, exact_ms, graph_ms, *recall)

    def _ask(self, scan: Scan, way: Way) -> tuple[list[list[Candidate]], float]:
        found, ms = [], []
        for question in self.questions:
            with reading_tenant(self.store, scan.scope.tenant_id) as conn:
                set_scope(conn, scan.scope)
                started = time.perf_counter()
                found.append(way(conn, question))
                ms.append((time.perf_counter() - started) * 1000)
        return found, round(statistics.median(ms), 2)


def measure(store: Store, tenant: AccessScope, profile: Profile, seed: int = 1) -> list[Point]:
    """Points by falling share, down to the first at which the graph is not good. The graph must stand.

    With the smallest ef_search that is good where everything is visible, or the largest.
    """
    with writing(store) as conn:
        held = calibrations.counts(conn, tenant.tenant_id, profile.id)
        stored = calibrations.sample(conn, tenant.tenant_id, profile.id, QUESTIONS, seed)
    trial = Trial(store, tenant, profile, held, _aside(np.array([each.to_numpy() for each in stored]), seed), seed)
    for ef_search in EF_SEARCH:
        points = [trial.point(1.0, ef_search)]
        if points[0].good:
            break
    for share in SHARES[1:]:
        if not points[-1].good:
            break
        points.append(trial.point(share, ef_search))
    return points


def decide(total: int, points: Sequence[Point]) -> Calibration:
    """What follows: the smallest share at which all is good, and the rows that a scan takes as long for."""
    good = [point for point in points if point.good]
    a_row = statistics.median(point.exact_ms / max(1, point.visible) for point in points)
    fastest = min(point.graph_ms for point in points)
    share = min((point.share for point in good), default=2.0)
    return Calibration(total, int(fastest / a_row), share, points[0].ef_search)


def calibrate(store: Store, scope: AccessScope, profile: Profile) -> tuple[Calibration, list[Point]]:
    """Measure, decide, and route the tenant's searches by it from now on."""
    with writing(store) as conn:
        total = sum(calibrations.counts(conn, scope.tenant_id, profile.id).values())
    points = measure(store, scope, profile)
    found = decide(total, points)
    with writing(store) as conn:
        calibrations.save(conn, scope.tenant_id, profile.id, found, [asdict(point) for point in points])
    return found, points


def label_sets_of(held: Mapping[int, int], share: float, seed: int) -> tuple[int, ...]:
    """Label sets drawn at random that hold about this share of all chunks."""
    left = share * sum(held.values())
    drawn = []
    for label_set in random.Random(seed).sample(sorted(held), len(held)):
        if share >= 1 or held[label_set] <= left * 1.05:
            drawn.append(label_set)
            left -= held[label_set]
    return tuple(sorted(drawn))


def _recall(truth: Sequence[Sequence[Candidate]], found: Sequence[Sequence[Candidate]], k: int) -> float:
    """The mean share of the true k nearest, or of all that there are, that stand among the first k found."""
    shares = []
    for wanted, got in zip(truth, found, strict=True):
        nearest = {candidate.chunk_id for candidate in wanted[:k]}
        shares.append(len(nearest & {candidate.chunk_id for candidate in got[:k]}) / max(1, len(nearest)))
    return round(statistics.mean(shares), 4)


def _aside(stored: NDArray[np.float32], seed: int) -> list[NDArray[np.float32]]:
    """Unit vectors near the stored ones [n, dimensions]."""
    moved = np.random.default_rng(seed).standard_normal(stored.shape, np.float32)
    moved = stored + ASIDE * moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return list(moved / np.linalg.norm(moved, axis=1, keepdims=True))
