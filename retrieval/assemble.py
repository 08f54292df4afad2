"""From ranked chunks to what an agent reads: numbered passages, their citations, and one context string."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.records import ChunkRow, Citation, FusedCandidate, Passage

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Assembled:
    """The passages that fit, and how many did not."""

    passages: tuple[Passage, ...]
    context: str
    over_budget: int


def assemble(
    ranked: Sequence[FusedCandidate],
    rows: Mapping[int, ChunkRow],
    top_k: int,
    max_tokens: int | None,
    count_tokens: CountTokens,
) -> Assembled:
    """The first `top_k` of those candidates whose rows the caller may read, within `max_tokens` of context.

    A passage over the budget is left out, and counted; smaller ones behind it may still fit.
    """
    chosen = [candidate for candidate in ranked if candidate.chunk_id in rows][:top_k]
    left = max_tokens
    kept: list[Passage] = []
    for candidate in chosen:
        passage = _passage(len(kept) + 1, candidate, rows[candidate.chunk_id])
        if left is not None:
            cost = count_tokens([_in_context(passage)])[0]  # with its line of origin: a title may be long
            if cost > left:
                continue
            left -= cost
        kept.append(passage)
    return Assembled(tuple(kept), "\n\n".join(map(_in_context, kept)), len(chosen) - len(kept))


def _passage(rank: int, candidate: FusedCandidate, row: ChunkRow) -> Passage:
    citation = Citation(
        marker=f"[{rank}]",
        document_id=row.document_id,
        external_id=row.external_id,
        version=row.version,
        title=row.title,
        uri=row.uri,
        page=row.page_start,
        heading_path=tuple(row.heading_path),  # a list, as the driver reads it
        start=row.start,
        end=row.end,
        content_hash=hashlib.sha256(row.text.encode()).hexdigest(),
    )
    score = candidate.fused if candidate.rerank is None else candidate.rerank
    return Passage(rank, score, row.text, citation, candidate)


def _in_context(passage: Passage) -> str:
    citation = passage.citation
    origin = [citation.title or citation.external_id]
    if citation.page is not None:
        origin.append(f"page {citation.page}")
    if citation.heading_path:
        origin.append(" > ".join(citation.heading_path))
    return f"{citation.marker} {', '.join(origin)}\n{passage.text}"
