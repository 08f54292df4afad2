"""Fusion of the legs. Fused by chunk id; a leg that does not propose a chunk contributes nothing to it.

Convex combination of min-max-normalised scores: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid
Retrieval", TOIS 2023. Reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009.
"""

from collections.abc import Mapping, Sequence

from core.records import Candidate, FusedCandidate

DENSE_WEIGHT = 0.5
RRF_K = 60  # as in the paper


def convex(
    dense: Sequence[Candidate], lexical: Sequence[Candidate], dense_weight: float = DENSE_WEIGHT
) -> list[FusedCandidate]:
    """Best first; ties by chunk id. `fused` lies in [0, 1]."""
    weighted = [(dense_weight, _normalised(dense)), (1 - dense_weight, _normalised(lexical))]
    return _ranked(dense, lexical, weighted)


def rrf(dense: Sequence[Candidate], lexical: Sequence[Candidate]) -> list[FusedCandidate]:
    """Best first; ties by chunk id. `fused` is the sum of 1 / (60 + rank) over the legs."""
    return _ranked(dense, lexical, [(1.0, _reciprocal(dense)), (1.0, _reciprocal(lexical))])


def _ranked(
    dense: Sequence[Candidate], lexical: Sequence[Candidate], weighted: Sequence[tuple[float, Mapping[int, float]]]
) -> list[FusedCandidate]:
    by_dense = {c.chunk_id: c.score for c in dense}
    by_lexical = {c.chunk_id: c.score for c in lexical}
    fused = [
        FusedCandidate(
            chunk_id,
            sum(weight * scores.get(chunk_id, 0.0) for weight, scores in weighted),
            dense=by_dense.get(chunk_id),
            lexical=by_lexical.get(chunk_id),
        )
        for chunk_id in by_dense.keys() | by_lexical.keys()
    ]
    return sorted(fused, key=lambda c: (-c.fused, c.chunk_id))


def _normalised(candidates: Sequence[Candidate]) -> dict[int, float]:
    scores = [c.score for c in candidates]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return {c.chunk_id: (c.score - low) / (high - low) if high > low else 1.0 for c in candidates}


def _reciprocal(candidates: Sequence[Candidate]) -> dict[int, float]:
    ordered = sorted(candidates, key=lambda c: (-c.score, c.chunk_id))
    return {c.chunk_id: 1 / (RRF_K + rank) for rank, c in enumerate(ordered, start=1)}
