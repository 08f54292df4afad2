"""A trained reranker beside the current one, on questions that it never saw."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from core.trained import RerankerKind
from eval.bootstrap import Estimate, difference, estimate
from eval.compare import MAIN, values_of
from eval.gate import Check, Limits, gate
from eval.gather import Candidates
from eval.judged import Judged
from eval.measures import percentile
from models.reranker import Reranker
from retrieval.rerank import Boxed, blend

WEIGHTS = tuple(tenth / 10 for tenth in range(1, 11))  # that a blend is chosen from
SLOWEST = 0.95  # the share of questions that have to be done within the time box

Scores = Sequence[Sequence[float | None]]  # of each question's first candidates


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the questions with their candidates, and how they are judged."""

    asked: tuple[Candidates, ...]
    judged: Judged

    def scores(self, reranker: Reranker, pool: int) -> tuple[list[list[float | None]], list[float]]:
        """Of each question's first candidates; and the ms that each question took, the warmth of the first aside."""
        found, spent = [], []
        for of in self.asked[:1]:
            reranker.score(of.question, of.passages[:pool])
        for of in self.asked:
            started = time.perf_counter()
            found.append(reranker.score(of.question, of.passages[:pool]))
            spent.append((time.perf_counter() - started) * 1000)
        return found, spent

    def ndcg(self, scores: Scores, weight: float) -> list[float]:
        """nDCG@10 by question, in the order of `judged`, as a search ranks that has these scores."""
        rankings = {}
        for of, each in zip(self.asked, scores, strict=True):
            place = dict(zip((c.chunk_id for c in of.fused), of.places, strict=True))
            ranked = blend(of.fused, each, weight) if each else of.fused
            rankings[of.query.id] = [place[candidate.chunk_id] for candidate in ranked]
        return values_of(self.judged, rankings, [MAIN])[str(MAIN)]

    def best_weight(self, reranker: Reranker, pool: int) -> tuple[float, float]:
        """(mean nDCG@10, the weight that gives it), the smallest of several."""
        scores, _ = self.scores(reranker, pool)
        return max(
            ((fmean(self.ndcg(scores, weight)), weight) for weight in WEIGHTS), key=lambda one: (one[0], -one[1])
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """A reranker on a part."""

    ndcg: Estimate
    values: tuple[float, ...]  # by question
    ms: float  # median over the questions, of scoring alone
    slow_ms: float  # that 95 % of the questions do not exceed


def figures_of(part: Part, boxed: Boxed | None) -> Figures:
    """Of a reranker as a search would use it; None: the fused order."""
    scores, spent = part.scores(boxed.reranker, boxed.pool) if boxed else ([[] for _ in part.asked], [0.0])
    values = part.ndcg(scores, boxed.weight if boxed else 0.0)
    return Figures(estimate(values), tuple(values), median(spent), percentile(spent, SLOWEST))


@dataclass(frozen=True, slots=True)
class Trial:
    """What was trained, beside the current one."""

    kind: RerankerKind
    note: str
    figures: Figures
    gain: Estimate  # paired by question
    check: Check
    box_s: float

    @property
    def reason(self) -> str:
        """Why it is not shipped; nothing: it may be."""
        if not self.check.passed or self.gain.mean <= 0:
            low = f", at the least by {self.check.bound:+.4f}" if self.check.bound is not None else ""
            return f"{MAIN} changed by {self.gain.mean:+.4f}{low}: that does not show it to be better"
        if self.figures.slow_ms > 1000 * self.box_s:
            return (
                f"a question takes up to {self.figures.slow_ms:.0f} ms and a search gives it {1000 * self.box_s:.0f}: "
                "answers would go without it"
            )
        return ""


def hold(part: Part, current: Figures, kind: RerankerKind, note: str, boxed: Boxed, candidates: int) -> Trial:
    """The trained one against the current one, with the burden of proof on it; of several `candidates` any may win.

    Raises Invalid for a part that is too small to tell.
    """
    figures, name = figures_of(part, boxed), str(MAIN)
    limits = Limits({name: 0.0}, forbidden=None, proven=True, candidates=candidates)
    before, after = (
        {query: {name: value} for query, value in zip(part.judged.grades, of.values, strict=True)}
        for of in (current, figures)
    )
    (check,) = gate(before, after, 0, limits).checks
    return Trial(kind, note, figures, difference(figures.values, current.values), check, boxed.box_s)
