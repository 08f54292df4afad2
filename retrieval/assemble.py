"""From ranked chunks to what an agent reads: numbered passages, their citations, and one context string."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from core.flags import UnseenKind
from core.records import ChunkRow, Citation, FusedCandidate, Passage
from core.rows import joined_rows
from store.documents import Span

MERGED = 3  # chunks that one passage may be of: some 600 tokens, a page
SHINGLE = 4  # words; Broder, On the resemblance and containment of documents, 1997
ALIKE = 0.9  # resemblance from which a passage says nothing new
ALIKE_IN_COPIES = 0.7  # of passages of documents that are copies: their chunks may begin and end at other words
UNSEEN = get_args(UnseenKind)
LEAST_SHINGLES = 12  # of a text that is compared: in a shorter one, one word is a difference

Shingles = frozenset[tuple[str, ...]]
CountTokens = Callable[[Sequence[str]], list[int]]
ReadSpans = Callable[[Sequence[Span]], dict[Span, str]]


@dataclass(frozen=True, slots=True)
class Group:
    """One passage to be: neighbouring chunks of a version in the order of its text, and the best-ranked one."""

    best: FusedCandidate
    chunks: tuple[ChunkRow, ...]

    @property
    def span(self) -> Span:
        """From the first chunk's start to the last one's end."""
        first = self.chunks[0]
        return Span(first.document_id, first.version, first.start, self.chunks[-1].end)

    def alone(self) -> "Group":
        """Without its neighbours."""
        return replace(self, chunks=tuple(row for row in self.chunks if row.chunk_id == self.best.chunk_id))


@dataclass(frozen=True, slots=True)
class Grouped:
    """The passages to be, and what was looked at for them."""

    groups: tuple[Group, ...]
    repeats: Mapping[int, int]  # as of `Assembled`
    used: tuple[FusedCandidate, ...]
    full: bool  # as many as were asked for: what comes behind changes nothing


@dataclass(frozen=True, slots=True)
class Assembled:
    """The passages that fit, how many did not, and how many were left out because another said the same."""

    passages: tuple[Passage, ...]
    context: str
    over_budget: int
    duplicates: int
    used: tuple[FusedCandidate, ...]  # the first of the ranking: what comes behind them changes nothing
    groups: tuple[Group, ...] = ()
    placed: tuple[Passage | None, ...] = ()  # what each group became; None: over the budget
    repeats: Mapping[int, int] = field(default_factory=dict)  # chunk → the place of the group that says the same


def assemble(
    ranked: Sequence[FusedCandidate],
    rows: Mapping[int, ChunkRow],
    top_k: int,
    max_tokens: int | None,
    count_tokens: CountTokens,
    read_spans: ReadSpans,
    merge: bool = True,
) -> Assembled:
    """The first `top_k` of those candidates whose rows the caller may read, within `max_tokens` of context.

    Neighbours of one version are one passage, at the place of the better one; a near-duplicate of a passage before it
    is left out. A passage over the budget goes without its neighbours, or is left out and counted; smaller ones behind
    it may still fit. `read_spans` gives the text of merged spans, without those that cannot be read any more. Without
    `merge` each chunk is a passage, in the order of the ranking.
    """
    return put_together(grouped(ranked, rows, top_k, merge), max_tokens, count_tokens, read_spans)


def grouped(ranked: Sequence[FusedCandidate], rows: Mapping[int, ChunkRow], top_k: int, merge: bool = True) -> Grouped:
    """Which chunks become which of the first `top_k` passages."""
    readable = [candidate for candidate in ranked if candidate.chunk_id in rows]
    if merge:
        return _merged(readable, rows, top_k)
    first = tuple(readable[:top_k])
    return Grouped(tuple(Group(c, (rows[c.chunk_id],)) for c in first), {}, first, len(first) == top_k)


def put_together(found: Grouped, max_tokens: int | None, count_tokens: CountTokens, read_spans: ReadSpans) -> Assembled:
    """The passages that they become within `max_tokens`."""
    groups = found.groups
    merged = read_spans([group.span for group in groups if len(group.chunks) > 1])
    placed = _placed(groups, merged, max_tokens, count_tokens)
    kept = tuple(passage for passage in placed if passage is not None)
    context = "\n\n".join(map(_in_context, kept))
    over_budget, repeats = len(groups) - len(kept), found.repeats
    return Assembled(kept, context, over_budget, len(repeats), found.used, groups, tuple(placed), repeats)


def _placed(
    groups: Sequence[Group], merged: Mapping[Span, str], max_tokens: int | None, count_tokens: CountTokens
) -> list[Passage | None]:
    """What each group becomes within the budget."""
    left, rank = max_tokens, 1
    placed: list[Passage | None] = []
    for group in groups:
        placed.append(None)
        for passage in _forms(rank, group, merged):
            cost = 0 if left is None else count_tokens([_in_context(passage)])[0]  # with its line of origin
            if left is None or cost <= left:
                left, rank = None if left is None else left - cost, rank + 1
                placed[-1] = passage
                break
    return placed


def _merged(ranked: Sequence[FusedCandidate], rows: Mapping[int, ChunkRow], top_k: int) -> Grouped:
    groups: list[Group] = []
    shingles: list[Shingles] = []
    repeats: dict[int, int] = {}
    used, full = 0, False
    for candidate in ranked:
        used += 1
        row = rows[candidate.chunk_id]
        beside = next((n for n, group in enumerate(groups) if _neighbours(group, row)), None)
        if beside is not None:
            chunks = sorted((*groups[beside].chunks, row), key=lambda each: each.ordinal)
            groups[beside] = replace(groups[beside], chunks=tuple(chunks))
            continue
        if full := len(groups) == top_k:
            break
        mine = _shingles(row.text)
        alike = (_alike(row, group.chunks[0]) for group in groups)
        said = next((n for n, least in enumerate(alike) if _resemble(mine, shingles[n], least)), None)
        if said is not None:
            repeats[candidate.chunk_id] = said
            continue
        shingles.append(mine)
        groups.append(Group(candidate, (row,)))
    return Grouped(tuple(groups), repeats, tuple(ranked[:used]), full)


def _neighbours(group: Group, row: ChunkRow) -> bool:
    first, last = group.chunks[0], group.chunks[-1]
    same = (row.document_id, row.version) == (first.document_id, first.version)
    return same and len(group.chunks) < MERGED and row.ordinal in (first.ordinal - 1, last.ordinal + 1)


def _shingles(text: str) -> Shingles:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[n:] for n in range(SHINGLE)), strict=False))


def _alike(one: ChunkRow, other: ChunkRow) -> float:
    """The resemblance from which one of them says nothing that the other does not."""
    copies = one.copies and other.copies and one.copies.family == other.copies.family
    return ALIKE_IN_COPIES if copies and one.document_id != other.document_id else ALIKE


def _resemble(one: Shingles, other: Shingles, least: float) -> bool:
    if min(len(one), len(other)) < LEAST_SHINGLES or one.isdisjoint(other):
        return False
    shared = len(one & other)
    return shared >= least * (len(one) + len(other) - shared)


def _forms(rank: int, group: Group, merged: Mapping[Span, str]) -> Iterator[Passage]:
    """The passage with its neighbours, where their span can be read, and then without."""
    if group.span in merged:
        yield _passage(rank, group, merged[group.span])
    alone = group.alone() if len(group.chunks) > 1 else group
    yield _passage(rank, alone, alone.chunks[0].text)


def _passage(rank: int, group: Group, text: str) -> Passage:
    row, span = group.chunks[0], group.span
    citation = Citation(
        marker=f"[{rank}]",
        document_id=row.document_id,
        external_id=row.external_id,
        version=row.version,
        title=row.title,
        uri=row.uri,
        page=row.page_start,
        heading_path=_shared_path(group.chunks),
        start=span.start,
        end=span.end,
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        superseded_by=row.superseded_by,
        copies=row.copies.count if row.copies else 0,
        attached_to=row.parent_id,
        attached_to_title=row.parent_name,
    )
    score = group.best.fused if group.best.rerank is None else group.best.rerank
    return Passage(rank, score, text, citation, group.best, flags_of(group.chunks))


def flags_of(chunks: Sequence[ChunkRow]) -> tuple[str, ...]:
    """The kinds of flags that lie on any of them, sorted."""
    return tuple(sorted({flag for row in chunks for flag in row.flags}))


def _shared_path(chunks: Sequence[ChunkRow]) -> tuple[str, ...]:
    """The headings that all of them stand under, which come as lists; of a sheet, the rows from first to last."""
    path: list[str] = []
    for headings in zip(*(row.heading_path for row in chunks), strict=False):
        if len(set(headings)) > 1:
            rows = joined_rows(headings)
            path += [rows] if rows else []
            break
        path.append(headings[0])
    return tuple(path)


def _in_context(passage: Passage) -> str:
    citation = passage.citation
    origin = [citation.title or citation.external_id]
    if citation.attached_to_title is not None:
        origin.append(f"attached to {citation.attached_to_title}")
    if citation.superseded_by is not None:
        origin.append("superseded")
    if citation.page is not None:
        origin.append(f"page {citation.page}")
    if citation.heading_path:
        origin.append(" > ".join(citation.heading_path))
    unseen = [flag for flag in passage.flags if flag in UNSEEN]  # of the others an agent reads in the text itself
    if unseen:
        origin.append(f"flagged: {', '.join(unseen)}")
    return f"{citation.marker} {', '.join(origin)}\n{passage.text}"
