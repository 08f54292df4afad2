"""A search against independent computations: order, scores, fusion, citations, budget, positions and variants."""

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from core.errors import Invalid
from core.records import Fusion, Passage, SearchAnswer, SearchRequest
from models.fake_embedder import FakeEmbedder
from retrieval.rerank import Boxed
from retrieval.search import Searcher, search
from store import access, documents
from store.changes import log
from store.pool import reading_tenant
from tests.conftest import World
from tests.integration.rows import fetch, read_text

WORDS = [f"w{number}" for number in range(40)]
ANA = "user:ana"


@pytest.fixture
def library(world: World) -> World:
    """Thirty documents of one chunk each, a third of which Ana may not see."""
    chance = random.Random(11)
    for number in range(30):
        text = " ".join(chance.choices(WORDS, k=chance.randint(3, 60)))
        world.add(f"d{number}", text, ("user:ben",) if number % 3 == 0 else ("public",))
    return world


def texts_seen(world: World) -> dict[int, str]:
    """Ana's chunks, as maintenance reads them: id → text. Public documents only, so no policy is asked."""
    query = "SELECT c.id, c.text FROM chunks c JOIN documents d ON d.id = c.document_id JOIN label_sets l ON " \
            "l.id = d.label_set_id WHERE 'public' = ANY(l.allow) ORDER BY c.id"  # fmt: skip
    return dict(fetch(world, query))


def bm25(query: str, texts: dict[int, str], k1: float = 1.5, b: float = 0.75) -> dict[int, float]:
    """Robertson's BM25 with Lucene's idf, as the formula stands; only those that hold a term."""
    bags = {i: Counter(text.split()) for i, text in texts.items()}
    length = {i: sum(bag.values()) for i, bag in bags.items()}
    average = sum(length.values()) / len(length)
    found: defaultdict[int, float] = defaultdict(float)
    for term in query.split():
        df = sum(term in bag for bag in bags.values())
        idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
        for i, bag in bags.items():
            if bag[term]:
                found[i] += idf * bag[term] * (k1 + 1) / (bag[term] + k1 * (1 - b + b * length[i] / average))
    return dict(found)


def cosines(query: str, texts: dict[int, str]) -> dict[int, float]:
    """Inner products of unit vectors, rounded to half precision as the index keeps them."""

    def half(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        return vectors.astype(np.float16).astype(np.float64)

    fake = FakeEmbedder()
    scores = half(fake.embed_documents(list(texts.values()))) @ half(fake.embed_queries([query]))[0]
    return {i: float(score) for i, score in zip(texts, scores, strict=True)}


def ranked(scores: dict[int, float]) -> list[int]:
    """Best first, ties by id."""
    return sorted(scores, key=lambda i: (-scores[i], i))


def ask(searcher: Searcher, world: World, query: str, **more: Any) -> SearchAnswer:
    """As Ana."""
    return search(searcher, world.who(ANA), SearchRequest(query, **{"top_k": 100, **more}))


def ids_of(answer: SearchAnswer) -> list[int]:
    """Chunk ids in order."""
    return [passage.scores.chunk_id for passage in answer.passages]


QUERIES = ["w1", "w1 w2 w3", "w5 w5 w6", "w7 absent", " ".join(WORDS[:12])]


def test_lexical_is_bm25_over_what_is_seen(library: World, searcher: Searcher) -> None:
    for query in QUERIES:
        expected = bm25(query, texts_seen(library))
        answer = ask(searcher, library, query, mode="lexical")
        assert {p.scores.chunk_id: p.scores.lexical for p in answer.passages} == pytest.approx(expected)
        assert ids_of(answer) == ranked({p.scores.chunk_id: p.scores.lexical or 0 for p in answer.passages})
        assert len(expected) > 0


def test_dense_is_the_inner_product_over_what_is_seen(library: World, searcher: Searcher) -> None:
    for query in QUERIES:
        expected = cosines(query, texts_seen(library))
        answer = ask(searcher, library, query, mode="dense")
        assert {p.scores.chunk_id: p.scores.dense for p in answer.passages} == pytest.approx(expected, abs=1e-6)
        assert ids_of(answer) == ranked({p.scores.chunk_id: p.scores.dense or 0 for p in answer.passages})
        assert len(answer.passages) == 20  # all that is seen, and no fewer


def test_hybrid_is_the_convex_combination(library: World, searcher: Searcher) -> None:
    for query in QUERIES:
        texts = texts_seen(library)
        dense, lexical = cosines(query, texts), bm25(query, texts)

        def scaled(scores: dict[int, float], i: int, low: float) -> float:
            high = max(scores.values())
            return 0.0 if i not in scores else (scores[i] - low) / (high - low) if high > low else 1.0

        w = Fusion().dense_weight
        expected = {i: w * scaled(dense, i, min(dense.values())) + (1 - w) * scaled(lexical, i, 0.0) for i in texts}
        answer = ask(searcher, library, query, rerank="none")
        assert {p.scores.chunk_id: p.score for p in answer.passages} == pytest.approx(expected, abs=1e-6)
        assert ids_of(answer) == ranked({p.scores.chunk_id: p.score for p in answer.passages})
        assert [p.rank for p in answer.passages] == list(range(1, len(texts) + 1))


def test_top_k_cuts_the_same_order(library: World, searcher: Searcher) -> None:
    whole = ids_of(ask(searcher, library, "w1 w2"))
    for k in (1, 3, 8):
        assert ids_of(ask(searcher, library, "w1 w2", top_k=k)) == whole[:k]


def test_nothing_is_found_where_nothing_is(world: World, searcher: Searcher) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        answer = ask(searcher, world, "w1", mode=mode)
        assert (answer.passages, answer.context, answer.degraded) == ((), "", ())


def test_texts_without_words_break_nothing(world: World, searcher: Searcher) -> None:
    for number in range(3):
        world.add(f"d{number}", "!!! " * (number + 1))
    assert ask(searcher, world, "word", mode="lexical").passages == ()
    assert ask(searcher, world, "??", mode="lexical").passages == ()
    assert len(ask(searcher, world, "word").passages) == 3


# --- variants of the question -------------------------------------------------------------------------------------


def test_variants_give_each_chunk_its_best_score(library: World, searcher: Searcher) -> None:
    texts = texts_seen(library)
    for mode, formula in (("lexical", bm25), ("dense", cosines)):
        by_query = [formula("w1 w2", texts), formula("w9", texts)]
        expected = {i: max(scores[i] for scores in by_query if i in scores) for i in by_query[0] | by_query[1]}
        answer = ask(searcher, library, "w1 w2", queries=("w9",), mode=mode)
        assert {p.scores.chunk_id: getattr(p.scores, mode) for p in answer.passages} == pytest.approx(
            expected, abs=1e-6
        )


def test_a_blank_question_is_invalid(library: World, searcher: Searcher) -> None:
    for blank in ("", "  ", "\n\t\u2003"):
        with pytest.raises(Invalid, match="query"):
            ask(searcher, library, blank)


# --- citations ----------------------------------------------------------------------------------------------------

UNICODE = [
    "Plain words in a row. " * 60,
    "🗝 Der Schlüssel 🔑🔑 liegt unter 𝔡𝔢𝔯 Matte. " * 60,
    "e\u0301te\u0301 👩‍👩‍👧 עברית العربية ไทย 日本語。" * 40,
    "First paragraph, short.\n\n" + "A line\nof \U0001f9ff many. " * 120 + "\n\nThe 😀 end",
]


def test_the_cited_span_is_the_passage(world: World, searcher: Searcher) -> None:
    for number, text in enumerate(UNICODE):
        world.add(f"d{number}", text)
    answer = ask(searcher, world, "words Schlüssel 日本語 many end")
    assert len(answer.passages) > len(UNICODE)
    for passage in answer.passages:
        assert cited(world, passage) == passage.text
        assert f"{passage.citation.marker} " in answer.context and passage.text in answer.context


def cited(world: World, passage: Passage) -> str:
    """text[start:end] of the cited version, counted in Python's code points."""
    text = read_text(world, ANA, passage.citation.document_id, passage.citation.version)
    assert text is not None
    return text[passage.citation.start : passage.citation.end]


def test_spans_of_a_text(world: World) -> None:
    text = "a🗝b𝔡c"
    submitted = world.add("d", text)
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who(ANA))
        for start in range(7):
            for end in (*range(7), 2**30, None):
                span = documents.read_text(conn, submitted.document_id, 1, start, end)
                assert span.text == text[start:end], (start, end)
                assert (span.start, span.end) == (start, start + len(span.text))


# --- the caller's budget ------------------------------------------------------------------------------------------


def test_max_tokens_holds_for_the_whole_context(library: World, searcher: Searcher) -> None:
    for max_tokens in (1, 20, 100, 1000):
        answer = ask(searcher, library, "w1 w2 w3", max_tokens=max_tokens)
        assert FakeEmbedder().count_tokens([answer.context])[0] <= max_tokens
        left_out = next(s.detail["over_budget"] for s in answer.activity if s.stage == "assemble")
        assert len(answer.passages) + left_out == 20


# --- positions ----------------------------------------------------------------------------------------------------


def seq_of(world: World, job_id: Any) -> int:
    """The position at which a job's effect is visible."""
    return int(fetch(world, "SELECT seq FROM jobs WHERE id = %s", job_id)[0][0])


def test_a_search_reads_its_own_write(world: World, searcher: Searcher) -> None:
    for number in range(5):
        submitted = world.add(f"d{number}", f"note {number}")
        answer = ask(searcher, world, "note", at_least=seq_of(world, submitted.job_id))
        assert len(answer.passages) == number + 1


def test_position_zero_is_always_reached(world: World, neighbour: World, searcher: Searcher) -> None:
    patient = replace(searcher, at_least_wait_s=0.1)
    assert ask(patient, world, "note", at_least=0).passages == ()  # nothing is logged yet
    neighbour.add("d", "note")
    assert ask(patient, world, "note", at_least=0).passages == ()
    world.add("d", "note")
    assert len(ask(patient, world, "note", at_least=0).passages) == 1


def test_no_position_tells_whether_it_is_anybodys(world: World, neighbour: World, searcher: Searcher) -> None:
    """Somebody who tries positions is told the same of hidden changes, of other tenants' and of none."""
    world.add("d", "note")
    world.add("hidden", "note", ("user:ben",))
    neighbour.add("e", "note")
    patient = replace(searcher, at_least_wait_s=0.2)
    answers = [told(ask(patient, world, "note", at_least=seq)) for seq in (*range(12), 2**62)]
    assert answers == [told(ask(patient, world, "note"))] * 13


def test_a_position_is_reached_whatever_else_is_under_way(
    world: World, searcher: Searcher, maintenance_url: str
) -> None:
    submitted = world.add("d", "note")
    with psycopg.connect(maintenance_url) as slow:
        log(slow, world.tenant_id, submitted.document_id, None, "relabel")  # holds a position, not committed
        later = world.add("e", "note")
        impatient = replace(searcher, at_least_wait_s=0.1)
        assert len(ask(impatient, world, "note", at_least=seq_of(world, later.job_id)).passages) == 2


# --- reranking ----------------------------------------------------------------------------------------------------


class Shortest:
    """A reranker that likes short passages."""

    reads = "text"

    def score(self, question: Any, passages: Any) -> list[float | None]:
        return [-float(len(passage.text)) for passage in passages]


def test_a_reranker_orders_its_pool(library: World, searcher: Searcher) -> None:
    with_reranker = replace(searcher, rerankers={"shortest": Boxed(Shortest(), box_s=5)})
    answer = ask(with_reranker, library, "w1 w2", rerank="shortest")
    lengths = [len(p.text) for p in answer.passages]
    assert lengths == sorted(lengths) and len(lengths) == 20
    scores = [p.score for p in answer.passages]
    assert scores == sorted(scores, reverse=True) == [p.scores.rerank for p in answer.passages]
    np.testing.assert_allclose(np.corrcoef(scores, lengths)[0, 1], -1)  # its own scores, on another scale
    fused = [p.scores.fused for p in ask(searcher, library, "w1 w2", rerank="none").passages]
    np.testing.assert_allclose([np.mean(scores), np.std(scores)], [np.mean(fused), np.std(fused)])
    with pytest.raises(Invalid, match="shortest"):
        ask(with_reranker, library, "w1", rerank="longest")


# --- paired worlds ------------------------------------------------------------------------------------------------


def test_hidden_documents_change_nothing_in_an_answer(world: World, neighbour: World, searcher: Searcher) -> None:
    """The same visible documents, in one world alone and in the other among hidden ones that hold the same words."""
    chance = random.Random(5)
    for number in range(15):
        text = " ".join(chance.choices(WORDS, k=chance.randint(3, 40)))
        for hidden in range(3):
            more = " ".join(chance.choices([*WORDS[:6], "rare"], k=chance.choice((2, 150))))
            neighbour.add(f"h{number}.{hidden}", more, ("user:ben",), source="secret")
        for each in (world, neighbour):
            each.add(f"d{number}", text)
    for query in (*QUERIES, "rare", "rare w1"):
        for mode in ("hybrid", "dense", "lexical"):
            for filters in (None, {"external_id": {"$ne": "d3"}}):
                alone = ask(searcher, world, query, mode=mode, filters=filters, max_tokens=150)
                among = ask(searcher, neighbour, query, mode=mode, filters=filters, max_tokens=150)
                assert told(alone) == told(among)
    assert told(ask(searcher, world, "w1", filters={"source": "secret"})) == told(
        ask(searcher, neighbour, "w1", filters={"source": "secret"})
    )


def told(answer: SearchAnswer) -> dict[str, Any]:
    """All that a caller without `operate` is told, but ids and times."""
    shown = {"candidates", "failed", "over_budget", "duplicates"}
    return {
        "passages": [
            (p.rank, p.score, p.text, p.scores.dense, p.scores.lexical, p.scores.fused, p.citation.external_id,
             p.citation.start, p.citation.end, p.citation.content_hash)
            for p in answer.passages
        ],
        "context": answer.context,
        "degraded": answer.degraded,
        "activity": [(s.stage, {k: v for k, v in s.detail.items() if k in shown}) for s in answer.activity],
    }  # fmt: skip


def test_candidates_are_what_the_leg_says(library: World, searcher: Searcher) -> None:
    answer = ask(searcher, library, "w1")
    counts = {s.stage: s.detail["candidates"] for s in answer.activity if s.stage in ("dense", "lexical")}
    assert counts == {"dense": 20, "lexical": len(bm25("w1", texts_seen(library)))}


def test_neighbouring_chunks_come_as_one_passage_whose_citation_is_its_text(world: World, searcher: Searcher) -> None:
    """Three paragraphs of 130 tokens are three chunks of up to 200; the words asked for stand in the last two."""
    parts = [" ".join(f"{letter}{n}" for n in range(130)) for letter in "abc"]
    submitted = world.add("book", "\n\n".join(parts))
    answer = ask(searcher, world, "b1 b2 c1 c2", mode="lexical")
    assert len(answer.passages) == 1
    passage = answer.passages[0]
    text = read_text(world, ANA, submitted.document_id)
    assert passage.text == text[passage.citation.start : passage.citation.end]
    assert passage.text == "\n\n".join(parts[1:])
