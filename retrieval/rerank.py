"""Rerank the fused candidates, within the search's deadline; without it the fused order stands."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.records import ChunkRow, FusedCandidate, SearchRequest
from models.reranker import Reranker
from retrieval.stages import Stages

RERANK_POOL = 50


def rerank(
    stages: Stages,
    rerankers: Mapping[str, Reranker],
    request: SearchRequest,
    fused: Sequence[FusedCandidate],
    rows: Mapping[int, ChunkRow],
) -> list[FusedCandidate]:
    """The candidates in the named reranker's order, those beyond its pool behind them in theirs."""
    ordered = [candidate for candidate in fused if candidate.chunk_id in rows]
    if request.rerank in (None, "none"):
        return ordered
    pool, rest = ordered[:RERANK_POOL], ordered[RERANK_POOL:]
    reranker = rerankers[str(request.rerank)]
    scores = stages.run("rerank", lambda: reranker.score(request.query, [rows[c.chunk_id].text for c in pool]))
    if scores is None:
        return ordered
    scored = [replace(candidate, rerank=score) for candidate, score in zip(pool, scores, strict=True)]
    return sorted(scored, key=lambda c: (-(c.rerank or 0.0), c.chunk_id)) + rest
