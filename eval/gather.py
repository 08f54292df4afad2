"""What a reranker chooses from: each question's fused pool with texts and codes, as one who asks it reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import numpy.typing as npt

from core.records import ChunkRow, FusedCandidate, Place, Principal
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import Judged
from eval.legs import Answers
from models.embedder import Embedder
from models.reranker import Proposed, Question
from retrieval.questions import vectors_of
from retrieval.rerank import RERANK_POOL
from store import access, chunks, tokens
from store.pool import Store, reading_tenant
from store.profiles import live_profile

# Who reads what a reranker learns from: it holds no label but `public`. What is learned moves everybody's scores, so
# nothing may be learned from what somebody cannot see.
LEARNER = "service:train"


@dataclass(frozen=True, slots=True)
class Candidates:
    """One question's."""

    query: GoldenQuery
    question: Question
    fused: tuple[FusedCandidate, ...]  # best first
    places: tuple[Place, ...]  # of `fused`
    passages: tuple[Proposed, ...]  # of the first of `fused`, which a reranker looks at
    grades: tuple[int, ...]  # of `passages`; 0: nobody judged it relevant


def as_learner(golden: GoldenSet) -> GoldenSet:
    """The same questions, asked by one who sees what everybody sees."""
    queries = tuple(replace(query, subject=LEARNER) for query in golden.queries)
    return replace(golden, queries=queries)


def gather(
    store: Store, tenant_id: UUID, embedder: Embedder, golden: GoldenSet, judged: Judged, answers: Answers,
    pool: int = RERANK_POOL, *, open_alone: bool,
) -> list[Candidates]:  # fmt: skip
    """Every question's candidates, in the set's order; with `open_alone` without those that anybody is denied.

    A reranker looks at the first `pool` of them.
    """
    found: dict[str, Candidates] = {}
    texts = list(dict.fromkeys(query.query for query in golden.queries))
    vectors = dict(zip(texts, (of_tokens for _, of_tokens in vectors_of(embedder, texts)), strict=True))
    for subject in sorted({query.subject for query in golden.queries}):
        asked = [query for query in golden.queries if query.subject == subject]
        rows, codes = _read(store, tenant_id, subject, [answers.found[query.id] for query in asked], open_alone)
        for query in asked:
            fused = tuple(c for c in answers.found[query.id] if c.chunk_id in rows)
            places = tuple(answers.places[c.chunk_id] for c in fused)
            passages = tuple(Proposed(rows[c.chunk_id].text, codes.get(c.chunk_id)) for c in fused[:pool])
            grades = judged.grades.get(query.id, {})
            of_passages = tuple(max(0, grades.get(judged.key(place), 0)) for place in places[:pool])
            question = _question(query.query, vectors[query.query])
            found[query.id] = Candidates(query, question, fused, places, passages, of_passages)
    return [found[query.id] for query in golden.queries]


def _read(
    store: Store, tenant_id: UUID, subject: str, pools: Sequence[Sequence[FusedCandidate]], open_alone: bool
) -> tuple[dict[int, ChunkRow], dict[int, bytes]]:
    ids = sorted({candidate.chunk_id for pool in pools for candidate in pool})
    with reading_tenant(store, tenant_id) as conn:
        access.enter_scope(conn, Principal(tenant_id, subject, via="service:eval"))
        rows = chunks.read_rows(conn, ids)
        if open_alone:
            kept = access.open_documents(conn, {row.document_id for row in rows.values()})
            rows = {i: row for i, row in rows.items() if row.document_id in kept}
        return rows, tokens.read(conn, live_profile(conn, tenant_id).id, sorted(rows))


def _question(text: str, vectors: npt.NDArray[np.float16]) -> Question:
    return Question(text, lambda: vectors)
