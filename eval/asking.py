"""Two ways to the same answers: ask the search, or do again, in bulk, what it does behind kept legs.

A replay reads as each question's principal, under row-level security, as a search does; a test holds the two together.
It costs a tenth: rows and codes of all questions are read at once, and no stage has a deadline.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from core.records import Candidate, ChunkRow, Citation, FusedCandidate, Fusion, Mode, Place, Principal, SearchRequest
from eval.golden import GoldenQuery, GoldenSet
from eval.kept import Kept, KeptScores
from eval.run import Answered, ask
from models.embedder import Embedder
from models.reranker import Question
from retrieval.assemble import assemble
from retrieval.fuse import fuse
from retrieval.legs import POOL
from retrieval.questions import vectors_of
from retrieval.read import depth
from retrieval.rerank import Boxed, blend
from retrieval.search import Searcher, search
from store import access, chunks, documents, tokens
from store.pool import Conn, Store, reading_tenant
from store.profiles import live_profile
from store.runs import StoredStages


@dataclass(frozen=True, slots=True)
class Relevant:
    """A relevant document, as its asker sees it: its relevant chunks."""

    document_id: UUID
    external_id: str
    chunk_ids: frozenset[int]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every question of a run is asked with."""

    tenant_id: UUID
    mode: Mode
    request: SearchRequest
    fusion: Fusion
    counted: int  # passages whose tokens count
    relevant: Mapping[str, tuple[Relevant, ...]]  # by question id
    pool: int = POOL  # of what a leg proposes, so many are fused

    def legs(self, kept: Kept, query: GoldenQuery) -> tuple[list[Candidate], list[Candidate]]:
        """What was kept of the dense and the lexical leg; nothing of the one that the mode leaves out."""
        dense = [] if self.mode == "lexical" else kept.leg("dense", query.subject, query.query)
        lexical = [] if self.mode == "dense" else kept.leg("lexical", query.subject, query.query)
        return dense[: self.pool], lexical[: self.pool]

    def fused(self, kept: Kept, query: GoldenQuery) -> list[FusedCandidate]:
        """As the search fuses them."""
        return fuse(self.fusion, *self.legs(kept, query))[:POOL]

    def stages(self, kept: Kept, answered: Answered, merged: Sequence[FusedCandidate]) -> tuple[StoredStages, ...]:
        """Where each relevant document stood; `merged` is what `fused` gives."""
        query = answered.query
        lists = (*self.legs(kept, query), merged)
        dense, lexical, fused = ([candidate.chunk_id for candidate in found] for found in lists)
        return tuple(
            StoredStages(
                query.id,
                each.document_id,
                each.external_id,
                _first(chunk_id in each.chunk_ids for chunk_id in dense),
                _first(chunk_id in each.chunk_ids for chunk_id in lexical),
                _first(chunk_id in each.chunk_ids for chunk_id in fused),
                _first(_meets(passage, each) for passage in answered.passages),
            )
            for each in self.relevant[query.id]
        )


def asking(searcher: Searcher, kept: Kept, setting: Setting) -> Callable[[GoldenQuery], Answered]:
    """By the search; its legs are asked only for what is not kept, and what they give is kept."""
    with_kept = replace(searcher, legs=kept.asking(searcher.legs))

    def ask_one(query: GoldenQuery) -> Answered:
        was_kept = kept.has(setting.mode, query.subject, query.query)
        answered, answer = ask(partial(search, with_kept), setting.tenant_id, query, setting.request)
        texts = [passage.text for passage in answer.passages[: setting.counted]]
        counted = sum(searcher.embedder.count_tokens(texts)) if texts else 0
        ms = None if was_kept else answered.ms
        stages = setting.stages(kept, answered, setting.fused(kept, query))
        return replace(answered, ms=ms, tokens=counted, stages=stages)

    return ask_one


def replaying(
    store: Store, kept: Kept, embedder: Embedder, boxed: Boxed | None, golden: GoldenSet, setting: Setting
) -> Callable[[GoldenQuery], Answered]:
    """By what is kept of every question's legs; `boxed` reads codes, or is None."""
    found: dict[str, Answered] = {}
    threadpool_limits(1, "blas")  # as in a search: on two busy cores the products take twenty times as long on two
    for subject in {query.subject for query in golden.queries}:
        asked = [query for query in golden.queries if query.subject == subject]
        with reading_tenant(store, setting.tenant_id) as conn:
            access.enter_scope(conn, Principal(setting.tenant_id, subject))
            found |= {each.query.id: each for each in _replay(conn, kept, embedder, boxed, asked, setting)}
    return lambda query: found[query.id]


def _replay(
    conn: Conn, kept: Kept, embedder: Embedder, boxed: Boxed | None, asked: Sequence[GoldenQuery], setting: Setting
) -> Iterable[Answered]:
    deep = depth(setting.request, boxed)
    fused = {query.id: setting.fused(kept, query) for query in asked}
    rows = chunks.read_rows(conn, sorted({c.chunk_id for found in fused.values() for c in found[:deep]}))
    readable = {i: [c for c in found[:deep] if c.chunk_id in rows] for i, found in fused.items()}
    pools = {query: [c.chunk_id for c in readable[query.id][: boxed.pool if boxed else 0]] for query in asked}
    late = KeptScores(kept, boxed.reranker) if boxed else None
    scores = late_scores(conn, live_profile(conn, setting.tenant_id).id, embedder, late, pools)
    for query in asked:
        ranked = readable[query.id]
        if boxed and ranked:
            ranked = blend(ranked, scores[query], boxed.weight)
        answered = _assembled(conn, embedder, setting, query, ranked, rows)
        yield replace(answered, stages=setting.stages(kept, answered, fused[query.id]))


def _assembled(
    conn: Conn, embedder: Embedder, setting: Setting, query: GoldenQuery, ranked: list[FusedCandidate],
    rows: dict[int, ChunkRow],
) -> Answered:  # fmt: skip
    answer = assemble(ranked, rows, setting.request.top_k, None, embedder.count_tokens,
                      partial(_spans, conn), not setting.request.as_ranked)  # fmt: skip
    citations = tuple(passage.citation for passage in answer.passages)
    texts = [passage.text for passage in answer.passages[: setting.counted]]
    counted = sum(embedder.count_tokens(texts)) if texts else 0
    scores = tuple(passage.score for passage in answer.passages)
    return Answered(query, citations, None, (), scores, counted)


def _spans(conn: Conn, spans: Sequence[documents.Span]) -> dict[documents.Span, str]:
    return documents.read_spans(conn, spans) if spans else {}


def late_scores(
    conn: Conn, profile_id: int, embedder: Embedder, late: KeptScores | None, pools: Mapping[GoldenQuery, list[int]]
) -> dict[GoldenQuery, list[float | None]]:
    """Of each question's chunks, which this transaction's reader was shown; codes of those that have no kept score are
    read at once."""
    if late is None:
        return {}
    wanted = {chunk_id for query, pool in pools.items() for chunk_id in late.missing(query.query, pool)}
    codes = tokens.read(conn, profile_id, sorted(wanted)) if wanted else {}
    found = {}
    for query, pool in pools.items():
        question = Question(query.query, partial(_question_tokens, embedder, query.query))
        found[query] = late.scores(question, pool, codes)
    return found


def _question_tokens(embedder: Embedder, text: str) -> NDArray[np.float16]:
    return vectors_of(embedder, [text])[0][1]


def _first(hits: Iterable[bool]) -> int | None:
    return next((rank for rank, hit in enumerate(hits, start=1) if hit), None)


def _meets(passage: Citation, relevant: Relevant) -> bool:
    same = passage.document_id == relevant.document_id
    return same and any(place.start < passage.end and passage.start < place.end for place in relevant.places)
