"""Rerank the fused candidates, within the reranker's time box; without it the fused order stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import Invalid
from core.records import ChunkRow, FusedCandidate, SearchRequest
from models.reranker import LateInteraction, Proposed, Question, Reranker
from retrieval.stages import Stages

LATE, NONE, TRAINED = "late", "none", "trained"
RERANK_POOL = 50  # candidates that a reranker looks at
# Of late interaction; codes are most of what a search reads. Of five collections four keep their nDCG@10 at 50 within
# 0.002, and the fifth (filings) loses 0.006, which is within chance (decision 0026).
LATE_POOL = 30
# On SciFact's and Chroma's training parts nDCG@10 rises by 0.010 and 0.011 at 0.5, by 0.006 at 0.3, and hardly beyond.
LATE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Boxed:
    """A reranker, and what it is given."""

    reranker: Reranker
    box_s: float  # after so long the answer goes without it
    weight: float = 1.0  # of its score against the fused one; at 1 the fused one has no say
    pool: int = RERANK_POOL  # candidates that it looks at


def late_interaction(
    box_s: float = 1.0, weight: float = LATE_WEIGHT, pool: int = LATE_POOL, ready: bool = True
) -> dict[str, Boxed]:
    """The default reranker by its name."""
    return {LATE: Boxed(LateInteraction(ready), box_s, weight, pool)}


def chosen(rerankers: Mapping[str, Boxed], request: SearchRequest, own: Boxed | None = None) -> Boxed | None:
    """What the request names; by default, over both legs, what the tenant had trained, else late interaction, and a
    single leg as it is. Raises Invalid."""
    known = dict(rerankers) if own is None else {**rerankers, TRAINED: own}
    name = request.rerank or (NONE if request.mode != "hybrid" else LATE if own is None else TRAINED)
    if name not in (NONE, LATE, *known):
        raise Invalid(f"unknown reranker {name[:40]!r}: choose from {[NONE, *known]}")
    return known.get(name)


def reads_codes(boxed: Boxed | None) -> bool:
    """Whether the reranker works on stored codes."""
    return boxed is not None and boxed.reranker.reads == "code"


def proposed(
    boxed: Boxed, fused: Sequence[FusedCandidate], rows: Mapping[int, ChunkRow], codes: Mapping[int, bytes]
) -> list[Proposed]:
    """What the reranker is to score: the first of the candidates, by their texts and codes as far as they were read."""
    first = [candidate.chunk_id for candidate in fused[: boxed.pool]]
    return [Proposed(rows[each].text if each in rows else "", codes.get(each)) for each in first]


def rerank(
    stages: Stages,
    boxed: Boxed | None,
    question: Question,
    fused: Sequence[FusedCandidate],
    passages: Sequence[Proposed],
) -> list[FusedCandidate]:
    """The candidates, the first of which are these passages, in the order that both scores give together."""
    if boxed is None or not passages:
        return list(fused)
    scores = stages.run("rerank", lambda: boxed.reranker.score(question, passages[: boxed.pool]), boxed.box_s)
    return list(fused) if scores is None else blend(fused, scores, boxed.weight)


def blend(ordered: Sequence[FusedCandidate], scores: Sequence[float | None], weight: float) -> list[FusedCandidate]:
    """The candidates, the first of which have these scores, by weighted z-scores of the fused and the new ones.

    Told on the fused scores' scale, so that all compare: `rerank` is (1 - weight) · fused + weight · the new score,
    brought to the mean and deviation that the fused ones have. A candidate without a new score, for it has no code or
    lies beyond the pool, keeps its fused score and stands where that puts it.
    """
    scored = [(c, score) for c, score in zip(ordered, scores, strict=False) if score is not None]
    if not scored:
        return list(ordered)
    old, new = np.array([c.fused for c, _ in scored]), np.array([score for _, score in scored])
    spread = old.std() / new.std() if new.std() > 0 else 0.0
    both = (1 - weight) * old + weight * (old.mean() + spread * (new - new.mean()))
    told = {c.chunk_id: (float(blended), score) for (c, score), blended in zip(scored, both, strict=True)}
    ranked = [c._replace(rerank=told[c.chunk_id][0]) if c.chunk_id in told else c for c in ordered]
    # equal ones, as when all were fused alike, by the new score
    return sorted(ranked, key=lambda c: (-_final(c), -told.get(c.chunk_id, (0.0, 0.0))[1], c.chunk_id))


def _final(candidate: FusedCandidate) -> float:
    return candidate.fused if candidate.rerank is None else candidate.rerank
