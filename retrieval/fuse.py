"""Fusion of the legs. Fused by chunk id; a leg that does not propose a chunk contributes nothing to it.

Convex combination of normalised scores: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
TOIS 2023. The dense leg's scores are scaled between its worst and best candidate, the lexical ones between BM25's least
possible score, 0, and the best: where only two chunks hold a code, the second is still a find, not the worst of them.
Reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009.
"""

from collections.abc import Mapping, Sequence

from core.records import Candidate, FusedCandidate, Fusion, FusionMethod

DENSE_WEIGHT, RRF_K = Fusion().dense_weight, Fusion().rrf_k


def fusion_from(method: FusionMethod | None, dense_weight: float | None) -> Fusion | None:
    """What is given of a fusion, the rest by default; None when nothing is."""
    if method is None and dense_weight is None:
        return None
    return Fusion(method or "convex", DENSE_WEIGHT if dense_weight is None else dense_weight)


def fuse(
    fusion: Fusion, dense: Sequence[Candidate], lexical: Sequence[Candidate], k: int | None = None
) -> list[FusedCandidate]:
    """The `k` best, best first, as the tenant or the request wants it; all without `k`."""
    if fusion.method == "rrf":
        return rrf(dense, lexical, k, fusion.rrf_k)
    return convex(dense, lexical, fusion.dense_weight, k)


def convex(
    dense: Sequence[Candidate],
    lexical: Sequence[Candidate],
    dense_weight: float = DENSE_WEIGHT,
    k: int | None = None,
) -> list[FusedCandidate]:
    """Best first; ties by chunk id. `fused` lies in [0, 1]. Where a leg proposes nothing, the other has all weight."""
    dense_weight = 1.0 if not lexical else 0.0 if not dense else dense_weight
    lowest = min((c.score for c in dense), default=0.0)
    weighted = [(dense_weight, _scaled(dense, lowest)), (1 - dense_weight, _scaled(lexical, 0.0))]
    return _ranked(dense, lexical, weighted, k)


def rrf(
    dense: Sequence[Candidate], lexical: Sequence[Candidate], k: int | None = None, constant: int = RRF_K
) -> list[FusedCandidate]:
    """Best first; ties by chunk id. `fused` is the sum of 1 / (constant + rank) over the legs."""
    weighted = [(1.0, _reciprocal(leg, constant)) for leg in (dense, lexical)]
    return _ranked(dense, lexical, weighted, k)


def _ranked(
    dense: Sequence[Candidate],
    lexical: Sequence[Candidate],
    weighted: Sequence[tuple[float, Mapping[int, float]]],
    k: int | None,
) -> list[FusedCandidate]:
    by_dense = {c.chunk_id: c.score for c in dense}
    by_lexical = {c.chunk_id: c.score for c in lexical}
    fused: dict[int, float] = {}
    for weight, scores in weighted:
        for chunk_id, score in scores.items():
            fused[chunk_id] = fused.get(chunk_id, 0.0) + weight * score
    ordered = sorted(sorted(fused), key=fused.__getitem__, reverse=True)[:k]  # stable: ties stay by chunk id
    return [FusedCandidate(each, fused[each], by_dense.get(each), by_lexical.get(each)) for each in ordered]


def _scaled(candidates: Sequence[Candidate], low: float) -> dict[int, float]:
    high = max((c.score for c in candidates), default=low)
    return {c.chunk_id: (c.score - low) / (high - low) if high > low else 1.0 for c in candidates}


def _reciprocal(candidates: Sequence[Candidate], constant: int) -> dict[int, float]:
    ordered = sorted(candidates, key=lambda c: (-c.score, c.chunk_id))
    return {c.chunk_id: 1 / (constant + rank) for rank, c in enumerate(ordered, start=1)}
