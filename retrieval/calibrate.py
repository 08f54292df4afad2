"""`citadel calibrate`: how wide a walk in a tenant's graph must be, and up to where a scan is as fast. Measured here.

People who see half of the tenant are tried with label sets drawn at random until they hold that share; questions are
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
from retrieval.dense import DEPTH, enough
from store import calibrations, vectors
from store.chunks import Scan
from store.pool import Conn, Store, reading_tenant, set_scope, writing
from store.vectors import Calibration

GRAPH_FROM = 20_000  # chunks: below, everything is scanned in some 10 ms
SHARES = (1.0, 0.5)
EF_SEARCH = (250, 375)  # wider ones look too far to tell whether the question's own neighbourhood is visible
RECALL = 0.98  # of the nearest 10 and of the nearest 50, that a walk must reach where it answers
QUESTIONS = 60
ASIDE = 0.5  # length of what is added to a unit vector: cosine 0.9 to the vector itself
WALKS = 2  # a walk that falls short comes on top of the scan: what a scan does in two walks' time, it does at once

Way = Callable[[Conn, NDArray[np.float32]], list[Candidate]]


@dataclass(frozen=True, slots=True)
class Point:
    """Scan and walk where this share of the tenant is visible; medians in milliseconds."""

    share: float
    visible: int
    ef_search: int
    exact_ms: float
    graph_ms: float
    answered: float  # share of the questions for which the walk found enough
    recall_at_10: float  # of those
    recall_at_50: float

    @property
    def good(self) -> bool:
        """Whether what the walk answers here is right."""
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
        graph, graph_ms = self._ask(scan, lambda conn, q: vectors.nearest_by_graph(conn, scan, q, ef_search))
        exact, exact_ms = self._ask(scan, lambda conn, q: vectors.nearest(conn, scan, q, DEPTH, visible))
        least = enough(DEPTH, ef_search)
        pairs = [(wanted, got) for wanted, got in zip(exact, graph, strict=True) if len(got) >= least]
        share = visible / sum(self.held.values())
        return Point(round(share, 4), visible, ef_search, exact_ms, graph_ms, round(len(pairs) / len(exact), 2),
                     recall(pairs, 10), recall(pairs, 50))  # fmt: skip

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
    """Points by growing width of the walk, up to the first at which all is good. The graph must stand."""
    with writing(store) as conn:
        held = calibrations.counts(conn, tenant.tenant_id, profile.id)
        stored = calibrations.sample(conn, tenant.tenant_id, profile.id, QUESTIONS, seed)
    trial = Trial(store, tenant, profile, held, _aside(np.array([each.to_numpy() for each in stored]), seed), seed)
    points: list[Point] = []
    for ef_search in EF_SEARCH:
        points += [trial.point(share, ef_search) for share in SHARES]
        if all(point.good for point in points[-len(SHARES) :]):
            break
    return points


def decide(points: Sequence[Point]) -> Calibration:
    """The narrowest walk that is good at every share, and the rows that a scan does in the time of two such walks.

    A width of 0 where none is good: then nothing is asked of the graph.
    """
    last = points[-len(SHARES) :]
    a_row = statistics.median(point.exact_ms / max(1, point.visible) for point in points)
    rows = int(WALKS * statistics.median(point.graph_ms for point in last) / a_row)
    return Calibration(rows, last[0].ef_search if all(point.good for point in last) else 0)


def calibrate(store: Store, tenant: AccessScope, profile: Profile) -> tuple[Calibration, list[Point]]:
    """Measure, decide, and route the tenant's searches by it from now on."""
    points = measure(store, tenant, profile)
    found = decide(points)
    with writing(store) as conn:
        calibrations.save(conn, tenant.tenant_id, profile.id, found, [asdict(point) for point in points])
    return found, points


def label_sets_of(held: Mapping[int, int], share: float, seed: int) -> tuple[int, ...]:
    """Label sets drawn at random that hold about this share of all chunks, of 1 exactly all."""
    left = share * sum(held.values())
    drawn = []
    for label_set in random.Random(seed).sample(sorted(held), len(held)):
        if share >= 1 or held[label_set] <= left * 1.05:
            drawn.append(label_set)
            left -= held[label_set]
    return tuple(sorted(drawn))


def recall(pairs: Sequence[tuple[Sequence[Candidate], Sequence[Candidate]]], k: int) -> float:
    """The mean share of the true k nearest, or of all that there are, among the first k found; 1 for no pairs."""
    shares = []
    for wanted, got in pairs:
        nearest = {candidate.chunk_id for candidate in wanted[:k]}
        shares.append(len(nearest & {candidate.chunk_id for candidate in got[:k]}) / max(1, len(nearest)))
    return round(statistics.mean(shares), 4) if shares else 1.0


def _aside(stored: NDArray[np.float32], seed: int) -> list[NDArray[np.float32]]:
    """Unit vectors near the stored ones [n, dimensions]."""
    moved = np.random.default_rng(seed).standard_normal(stored.shape, np.float32)
    moved = stored + ASIDE * moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return list(moved / np.linalg.norm(moved, axis=1, keepdims=True))
