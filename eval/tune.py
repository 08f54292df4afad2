"""Which settings of the search answer a golden set best, and is that more than luck?

One knob after the other is turned to its best place on the training questions, until none gains any more (coordinate
ascent). What comes out is then measured once, beside the present setting, on questions that had no say in it: of many
settings that were tried, the best one's gain on the training questions is always flattering.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from ir_measures import Measure

from core.records import Fusion
from eval.bootstrap import Estimate, difference, estimate
from eval.chance import holm, randomisation_p
from eval.compare import Rankings, values_of
from eval.judged import Judged
from eval.pair import SAME, Row, row_of
from eval.split import Split

ALPHA = 0.05  # of the held-out test, corrected for all the settings that it looks at
ROUNDS = 3
WEIGHTS = tuple(n / 10 for n in range(11))

Knob = Literal["fusion", "rerank", "pools", "bm25", "chunks"]
KNOBS: tuple[Knob, ...] = ("fusion", "rerank", "pools", "bm25")  # what is turned without indexing anything anew


@dataclass(frozen=True, slots=True)
class Way:
    """One setting of a hybrid search."""

    fusion: Fusion
    late_weight: float  # of late interaction against the fused score; 0: among equals alone
    late_pool: int  # candidates that it looks at
    pool: int  # candidates of each leg that are fused
    k1: float
    b: float
    chunks: str = ""  # how a collection was chunked: `400 characters`; empty: as it is


Change = Mapping[str, Any]  # fields of a Way
GRID: dict[Knob, tuple[tuple[Change, ...], ...]] = {  # of each knob, what is turned at once
    "fusion": (
        (*({"fusion": Fusion("convex", weight)} for weight in WEIGHTS),
         *({"fusion": Fusion("rrf", rrf_k=k)} for k in (10, 30, 60, 120))),
    ),
    "rerank": (tuple({"late_weight": weight} for weight in WEIGHTS[:-1]),),
    "pools": (tuple({"late_pool": size} for size in (20, 30, 50, 100)),
              tuple({"pool": size} for size in (50, 100, 200))),
    "bm25": (tuple({"k1": k1} for k1 in (0.6, 0.9, 1.2, 1.5, 2.0)),
             tuple({"b": b} for b in (0.2, 0.4, 0.6, 0.75, 0.9))),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting on the training questions."""

    way: Way
    mean: float


@dataclass(frozen=True, slots=True)
class Finalist:
    """A setting that the training questions liked best, on those that were held out."""

    name: Literal["fusion", "all"]  # `fusion`: with nothing but the tenant's fusion changed
    way: Way
    train: Estimate  # change of the mean there, which flatters
    held: Row
    deltas: tuple[float, ...]  # of the held-out questions, ascending
    passed: bool  # better, and beyond chance


@dataclass(frozen=True, slots=True)
class Tuned:
    """All that was tried, and what became of the best."""

    measure: str
    train: int  # questions
    held: int
    groups: int
    present: Way
    before: Estimate  # the present setting on the held-out questions
    tried: tuple[Tried, ...]  # in the order in which they were
    finalists: tuple[Finalist, ...]  # none: on the training questions already, nothing was better

    def winner(self) -> Finalist | None:
        """Of those that passed, the one that gained most; None: keep what is there."""
        return max((f for f in self.finalists if f.passed), key=lambda f: f.held.change.mean, default=None)

    def fusion(self) -> Finalist | None:
        """The finalist with another fusion and nothing else, where it passed."""
        return next((f for f in self.finalists if f.passed and f.name == "fusion"), None)


Rank = Callable[[Way, frozenset[str]], Rankings]  # the questions of these ids, under this setting


def tune(
    rank: Rank,
    judged: Judged,
    parts: Split,
    present: Way,
    grid: Sequence[Sequence[Change]],
    measure: Measure,
    progress: Callable[[int, int], None] = lambda tried, of: None,
) -> Tuned:
    """Turn the knobs of the grid on the training questions, and measure what came out on the held-out ones."""
    values = _Values(rank, judged, measure)
    best = _ascend(lambda way: values.of(way, parts.train), present, grid, progress)
    tried = tuple(Tried(way, fmean(of.values())) for way, of in values.asked(parts.train))
    alone = max((t for t in tried if replace(t.way, fusion=present.fusion) == present), key=lambda t: t.mean).way
    ways: dict[Literal["fusion", "all"], Way] = {"fusion": alone, "all": best}
    found = {name: way for name, way in ways.items() if way != present and (name == "fusion" or way != alone)}
    before = list(values.of(present, parts.held).values())
    held = {name: list(values.of(way, parts.held).values()) for name, way in found.items()}
    changes = {name: [b - a for a, b in zip(before, of, strict=True)] for name, of in held.items()}
    p_values: dict[str, float] = {name: randomisation_p(of) for name, of in changes.items()}
    corrected = holm(p_values)
    finalists = []
    for name, way in found.items():
        row = row_of(str(measure), list(zip(before, held[name], strict=True)), difference(held[name], before),
                     p_values[name], corrected[name])  # fmt: skip
        gained = _gain(values.of(present, parts.train), values.of(way, parts.train))
        passed = row.change.mean > 0 and row.p_holm <= ALPHA
        finalists.append(Finalist(name, way, gained, row, tuple(sorted(changes[name])), passed))
    return Tuned(str(measure), len(parts.train), len(parts.held), parts.groups, present, estimate(before), tried,
                 tuple(finalists))  # fmt: skip


class _Values:
    """The measure of each question under each setting, asked for once."""

    def __init__(self, rank: Rank, judged: Judged, measure: Measure) -> None:
        self._rank, self._judged, self._measure = rank, judged, measure
        self._known: dict[tuple[Way, frozenset[str]], dict[str, float]] = {}

    def of(self, way: Way, ids: frozenset[str]) -> dict[str, float]:
        """By question, in the judgements' order."""
        if (way, ids) not in self._known:
            part = Judged(self._judged.unit, {i: of for i, of in self._judged.grades.items() if i in ids})
            values = values_of(part, self._rank(way, ids), [self._measure])[str(self._measure)]
            self._known[way, ids] = dict(zip(part.grades, values, strict=True))
        return self._known[way, ids]

    def asked(self, ids: frozenset[str]) -> list[tuple[Way, dict[str, float]]]:
        """Every setting whose values of these questions are known."""
        return [(way, values) for (way, of), values in self._known.items() if of == ids]


def _ascend(
    values: Callable[[Way], Mapping[str, float]], present: Way, grid: Sequence[Sequence[Change]],
    progress: Callable[[int, int], None],
) -> Way:  # fmt: skip
    """Knob by knob to the best place; a tie changes nothing."""
    best, top = present, fmean(values(present).values())
    tried, total = 0, ROUNDS * sum(map(len, grid))
    for _ in range(ROUNDS):
        before = best
        for turned in grid:
            for way in [replace(best, **change) for change in turned]:
                mean = fmean(values(way).values())
                if mean > top + SAME:
                    best, top = way, mean
                tried += 1
                progress(tried, total)
        if best == before:
            break
    progress(total, total)
    return best


def _gain(before: Mapping[str, float], after: Mapping[str, float]) -> Estimate:
    return difference(list(after.values()), list(before.values()))
