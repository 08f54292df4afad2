"""Why these passages, and not the next: where each stage put the candidates near the cut, and what became of each.

Candidates that the caller may not read are not told of, nor do they count in a rank: no leg proposes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.explained import Explained, Fate, Placed
from core.records import Candidate, ChunkRow, FusedCandidate
from retrieval.assemble import Assembled

BELOW = 10  # candidates behind the last one that was looked at


@dataclass(frozen=True, slots=True)
class Pool:
    """What the legs proposed, each best first, and how it was fused."""

    fused: list[FusedCandidate]
    dense: Sequence[Candidate] = ()
    lexical: Sequence[Candidate] = ()


def explain(
    pool: Pool, ranked: Sequence[FusedCandidate], rows: Mapping[int, ChunkRow], answer: Assembled
) -> tuple[Explained, ...]:
    """The readable candidates in their last order, down to BELOW behind those that the answer was made of."""
    readable = [candidate for candidate in ranked if candidate.chunk_id in rows]
    dense, lexical = _places(pool.dense), _places(pool.lexical)
    fused = {c.chunk_id: Placed(rank, c.fused) for rank, c in enumerate(pool.fused, start=1)}
    again = [c for c in readable if c.rerank is not None]
    reranked = {c.chunk_id: Placed(rank, c.rerank) for rank, c in enumerate(again, start=1) if c.rerank is not None}
    fates = _fates(answer)
    told = []
    for candidate in readable[: len(answer.used) + BELOW]:
        row, key = rows[candidate.chunk_id], candidate.chunk_id
        fate, passage = fates.get(key, ("below_cut", None))
        told.append(Explained(row.document_id, row.external_id, row.version, row.start, row.end, dense.get(key),
                              lexical.get(key), fused[key], reranked.get(key), fate, passage))  # fmt: skip
    return tuple(told)


def _places(candidates: Sequence[Candidate]) -> dict[int, Placed]:
    return {c.chunk_id: Placed(rank, c.score) for rank, c in enumerate(candidates, start=1)}


def _fates(answer: Assembled) -> dict[int, tuple[Fate, int | None]]:
    fates: dict[int, tuple[Fate, int | None]] = {}
    for group, passage in zip(answer.groups, answer.placed, strict=True):
        for row in group.chunks:
            best = row.chunk_id == group.best.chunk_id
            if passage is None:
                fates[row.chunk_id] = ("over_budget", None)
            elif passage.citation.start <= row.start and row.end <= passage.citation.end:
                fates[row.chunk_id] = ("passage" if best else "merged", passage.rank)
            else:  # its neighbour went without it
                fates[row.chunk_id] = ("over_budget", passage.rank)
    for chunk_id, place in answer.repeats.items():
        said = answer.placed[place]
        fates[chunk_id] = ("duplicate", said.rank if said else None)
    return fates
