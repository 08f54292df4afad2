"""Texts and codes of what was proposed: from here on, content, under row-level security.

Codes are read before texts where they decide the order: then few texts are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.records import ChunkRow, FusedCandidate, Principal, SearchRequest
from models.reranker import Question
from retrieval.assemble import Grouped, grouped
from retrieval.rerank import RERANK_POOL, Boxed, proposed, reads_codes, rerank
from retrieval.stages import Stages
from store import access, chunks, documents, tokens
from store.chunks import Scan
from store.documents import Span
from store.pool import Conn, Store, reading_tenant

READ_AHEAD = 4  # candidates for each passage asked for: neighbours and near-duplicates take no place
FIRST = 2  # texts for each passage asked for that are read at once: the others are seldom looked at


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, of which index, and who puts the answer in its last order."""

    scan: Scan
    request: SearchRequest
    boxed: Boxed | None
    question: Question


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates that may be read, in their last order, and the texts of those that count."""

    ranked: Sequence[FusedCandidate]
    rows: Mapping[int, ChunkRow]
    groups: Grouped


@dataclass(frozen=True, slots=True)
class Unranked:
    """Candidates that may be read, all with their texts: for a reranker that takes its time."""

    fused: Sequence[FusedCandidate]
    rows: Mapping[int, ChunkRow]
    codes: Mapping[int, bytes] = field(default_factory=dict)


def read(conn: Conn, stages: Stages, fused: Sequence[FusedCandidate], asked: Asked) -> Ranked | Unranked:
    """What is needed of the candidates, best first.

    A candidate that is not there for this reader gives way to those behind it; that is found out by its text, or
    already by its code.
    """
    boxed = asked.boxed
    first, codes = fused[: depth(asked.request, boxed)], dict[int, bytes]()
    if boxed and reads_codes(boxed):
        pool = [candidate.chunk_id for candidate in first[: boxed.pool]]
        with stages.timed("read"):
            codes = tokens.read(conn, asked.scan.profile_id, pool)
        if len(codes) == len(pool):
            ranked = rerank(stages, boxed, asked.question, first, proposed(boxed, first, {}, codes))
            if found := _ranked(conn, stages, ranked, asked.request):
                return found
    elif boxed is None and (found := _ranked(conn, stages, first, asked.request)):
        return found
    with stages.timed("read"):
        rows = _whole(conn, fused, len(first))
        readable = [candidate for candidate in fused if candidate.chunk_id in rows]
        if boxed and reads_codes(boxed):
            pool = [c.chunk_id for c in readable[: boxed.pool] if c.chunk_id not in codes]
            codes |= tokens.read(conn, asked.scan.profile_id, pool)
    return Unranked(readable, rows, codes)


def finish(stages: Stages, found: Ranked | Unranked, asked: Asked) -> Ranked:
    """The last order, where it is still to be found."""
    if isinstance(found, Ranked):
        return found
    passages = proposed(asked.boxed, found.fused, found.rows, found.codes) if asked.boxed else []
    ranked = rerank(stages, asked.boxed, asked.question, found.fused, passages)
    with stages.timed("assemble"):
        return Ranked(ranked, found.rows, _grouped(ranked, found.rows, asked.request))


def _ranked(conn: Conn, stages: Stages, ranked: Sequence[FusedCandidate], request: SearchRequest) -> Ranked | None:
    """With as many texts as the answer is made of; None where one of them is not there."""
    ids, rows = [candidate.chunk_id for candidate in ranked], dict[int, ChunkRow]()
    many = len(ids) if request.explain else FIRST * request.top_k
    for some in (ids[:many], ids[many:]):
        with stages.timed("read"):
            rows |= chunks.read_rows(conn, some) if some else {}
        if not all(chunk_id in rows for chunk_id in some):
            return None
        with stages.timed("assemble"):
            groups = _grouped(ranked, rows, request)
        if groups.full:
            break
    return Ranked(ranked, rows, groups)


def _grouped(ranked: Sequence[FusedCandidate], rows: Mapping[int, ChunkRow], request: SearchRequest) -> Grouped:
    return grouped(ranked, rows, request.top_k, not request.as_ranked)


def _whole(conn: Conn, fused: Sequence[FusedCandidate], first: int) -> dict[int, ChunkRow]:
    """Rows of those that are likely to be needed, and the others' when one of these has gone."""
    ids = [candidate.chunk_id for candidate in fused]
    rows = chunks.read_rows(conn, ids[:first])
    if len(rows) < first:
        rows |= chunks.read_rows(conn, ids[first:])
    return rows


def depth(request: SearchRequest, boxed: Boxed | None) -> int:
    """How many of the best candidates come into question."""
    shown = request.top_k if request.as_ranked else READ_AHEAD * request.top_k
    return max(boxed.pool if boxed else RERANK_POOL, shown)


def read_spans(store: Store, principal: Principal, spans: Sequence[Span]) -> dict[Span, str]:
    """Texts of merged passages, as the principal may read them now."""
    if not spans:
        return {}
    with reading_tenant(store, principal.tenant_id) as conn:
        access.enter_scope(conn, principal, store.scopes)
        return documents.read_spans(conn, spans)
