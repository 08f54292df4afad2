"""Late interaction in a search: codes that come and go with their document, who may read them, and what they change."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from core.errors import Invalid
from core.labels import make_labels
from core.records import FusedCandidate, SearchAnswer, SearchRequest
from ingest.erase import erase
from ingest.fill_codes import fill_codes
from models.fake_embedder import FakeEmbedder
from models.reranker import LateInteraction
from models.token_codes import maxsim
from retrieval.rerank import LATE, LATE_WEIGHT, blend, late_interaction
from retrieval.search import Searcher, search
from store import access, documents, tokens
from store.pool import reading_tenant, writing
from tests.conftest import World
from tests.integration.rows import fetch

HR = "group:hr"
TEXTS = [
    "the red lamp stands on the old desk",
    "a red desk and a green lamp, both new",
    "the lamp of the harbour is red at night and green at dawn, as every lamp of a harbour is",
    "desk rules: no lamp, no food, no noise",
    "red red red",
]


@pytest.fixture
def library(world: World) -> World:
    """Five public documents, and one for Hana of hr."""
    world.groups({HR: ["user:hana"]})
    for number, text in enumerate(TEXTS):
        world.add(f"d{number}", text)
    world.add("hidden", "the red lamp on the desk of hr", (HR,))
    return world


def ask(searcher: Searcher, world: World, query: str, who: str = "user:otto", **more: Any) -> SearchAnswer:
    """All that somebody is told."""
    return search(searcher, world.who(who), SearchRequest(query, **{"top_k": 20, **more}))


def codes_read(world: World, who: str, ids: Sequence[int]) -> dict[int, bytes]:
    """What a reader of that scope gets."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who(who))
        return tokens.read(conn, world.profile.id, ids)


def stored(world: World) -> dict[int, str]:
    """Chunk id → text, of all chunks."""
    return dict(fetch(world, "SELECT id, text FROM chunks"))


# --- what is stored -----------------------------------------------------------------------------------------------


def test_a_chunks_code_is_that_of_the_text_it_was_embedded_with(library: World) -> None:
    found = stored(library)
    _, codes = FakeEmbedder().embed_documents_with_tokens(list(found.values()))
    assert codes_read(library, "user:hana", list(found)) == dict(zip(found, codes, strict=True))


def test_a_foreign_principal_gets_no_code_by_any_sql(library: World, app_url: str) -> None:
    (secret,) = [i for i, text in stored(library).items() if "hr" in text]
    assert codes_read(library, "user:otto", [secret]) == {} and len(codes_read(library, "user:hana", [secret])) == 1
    scope = library.scope("user:otto")
    with psycopg.connect(app_url) as conn:
        assert conn.execute("SELECT code FROM tokens_1").fetchall() == []
        conn.execute("SELECT set_config('citadel.tenant', %s, true), set_config('citadel.label_sets', %s, true)",
                     (str(scope.tenant_id), scope.array))  # fmt: skip
        ids = {row[0] for row in conn.execute("SELECT chunk_id FROM tokens_1").fetchall()}
        assert len(ids) == len(TEXTS) and secret not in ids
        assert conn.execute("SELECT FROM tokens_1 WHERE chunk_id = %s", (secret,)).fetchall() == []
        assert conn.execute("SELECT FROM tokens_1 t JOIN vectors_1 USING (chunk_id) WHERE t.code <> ''").rowcount == 5


def test_codes_follow_the_documents_labels_at_once(library: World) -> None:
    ((document_id,),) = fetch(library, "SELECT id FROM documents WHERE external_id = 'd0'")
    ids = [row[0] for row in fetch(library, "SELECT id FROM chunks WHERE document_id = %s", document_id)]
    assert len(codes_read(library, "user:otto", ids)) == 1
    with writing(library.store) as conn:
        documents.change_labels(conn, library.tenant_id, document_id, make_labels([HR]))
    assert codes_read(library, "user:otto", ids) == {} and len(codes_read(library, "user:hana", ids)) == 1


def test_a_new_version_replaces_codes_and_erasure_takes_them(library: World) -> None:
    document_id = library.add("d0", "another text altogether").document_id
    rows = fetch(library, "SELECT t.chunk_id, c.version FROM tokens_1 t JOIN chunks c ON c.id = t.chunk_id "
                          "WHERE t.document_id = %s", document_id)  # fmt: skip
    assert [version for _, version in rows] == [2]
    erase(library.store, library.blobs, library.tenant_id, document_id, by="service:test")
    assert fetch(library, "SELECT FROM tokens_1 WHERE document_id = %s", document_id) == []
    assert len(fetch(library, "SELECT FROM tokens_1")) == len(TEXTS)


def test_codes_that_are_missing_are_filled_in_from_the_chunks_own_text(library: World) -> None:
    before = fetch(library, "SELECT chunk_id, document_id, code FROM tokens_1 ORDER BY chunk_id")
    assert fill_codes(library.store, library.embedder, library.profile) == 0
    fetch(library, "DELETE FROM tokens_1 WHERE chunk_id > (SELECT min(chunk_id) FROM tokens_1) RETURNING 1")
    notes = fetch(library, "SELECT count(*) FROM label_set_changes")
    told: list[tuple[int, int]] = []
    missing = len(before) - 1
    assert fill_codes(library.store, library.embedder, library.profile, lambda *done: told.append(done)) == missing
    assert told == [(missing, missing)]
    assert fetch(library, "SELECT chunk_id, document_id, code FROM tokens_1 ORDER BY chunk_id") == before
    assert fetch(library, "SELECT count(*) FROM label_set_changes") > notes  # what was kept of searches has ended
    with writing(library.store) as conn:
        tokens.fill(conn, library.profile.id, {10**9: b"x"})  # whose chunk has gone meanwhile
    assert len(fetch(library, "SELECT FROM tokens_1")) == len(before)


def test_a_model_without_token_vectors_fills_nothing_in(library: World) -> None:
    class Plain(FakeEmbedder):
        token_bits = 0

    with pytest.raises(Invalid, match="no token vectors"):
        fill_codes(library.store, Plain(), library.profile)


# --- what it does -------------------------------------------------------------------------------------------------


def test_the_default_of_a_hybrid_search_is_the_blend(library: World, searcher: Searcher) -> None:
    query = "red lamp on the desk"
    plain, told = ask(searcher, library, query, rerank="none"), ask(searcher, library, query)
    assert told.degraded == () and len(told.passages) == len(TEXTS)
    fused = {p.scores.chunk_id: p.scores.fused for p in plain.passages}
    fake = FakeEmbedder()
    asked = fake.embed_queries_with_tokens([query])[1][0]
    late = {}
    for passage in plain.passages:
        code = fake.embed_documents_with_tokens([passage.text])[1][0]
        late[passage.scores.chunk_id] = float(maxsim(asked.astype(np.float16), [code])[0])
    z_fused, z_late = (z_scores([each[i] for i in fused]) for each in (fused, late))
    blended = dict(zip(fused, (1 - LATE_WEIGHT) * z_fused + LATE_WEIGHT * z_late, strict=True))
    ids = [p.scores.chunk_id for p in told.passages]
    assert ids == sorted(blended, key=lambda i: -blended[i]) and ids != list(fused)
    scores = [p.score for p in told.passages]
    assert scores == sorted(scores, reverse=True) == [p.scores.rerank for p in told.passages]
    assert {p.scores.chunk_id: p.scores.fused for p in told.passages} == fused


def test_an_answer_from_few_texts_is_that_from_all(world: World, searcher: Searcher) -> None:
    """Near-duplicates take no place: where they fill what is read first, the rest is read too."""
    same = "the red lamp on the desk of the harbour house is lit at dusk and put out at dawn by whoever wakes first"
    for number in range(9):
        world.add(f"same{number}", f"{same} note {number}")
    for number, text in enumerate(TEXTS):
        world.add(f"d{number}", text)
    for top_k in (1, 2, 3, 6):
        for query in ("red lamp on the desk", "lamp at dawn", "food"):
            told = ask(searcher, world, query, top_k=top_k)
            of_all = ask(searcher, world, query, top_k=top_k, explain=True)  # which reads them all
            assert told.passages == of_all.passages and len(told.passages) == top_k


def test_a_candidate_without_a_code_is_found_by_its_text(library: World, searcher: Searcher) -> None:
    every = ask(searcher, library, "red lamp")
    with writing(library.store) as conn:
        conn.execute("DELETE FROM tokens_1 WHERE chunk_id = %s", (every.passages[0].scores.chunk_id,))
    told = ask(searcher, library, "red lamp")
    assert {p.text for p in told.passages} == {p.text for p in every.passages} and told.degraded == ()
    assert [p.scores.rerank is None for p in told.passages].count(True) == 1
    assert [stage.stage for stage in told.activity].count("read") == 1


def z_scores(values: list[float]) -> Any:
    """With the population's deviation."""
    return (np.array(values) - np.mean(values)) / np.std(values)


def test_a_single_leg_is_reranked_when_asked_for(library: World, searcher: Searcher) -> None:
    for mode in ("dense", "lexical"):
        plain, named = (ask(searcher, library, "red lamp", mode=mode, rerank=name) for name in (None, LATE))
        assert all(p.scores.rerank is None for p in plain.passages)
        assert any(p.scores.rerank is not None for p in named.passages) and named.degraded == ()


def test_chunks_without_codes_keep_their_fused_score(library: World, searcher: Searcher) -> None:
    fetch(library, "DELETE FROM tokens_1 USING chunks c WHERE c.id = chunk_id AND c.text LIKE 'desk%%' RETURNING 1")
    answer = ask(searcher, library, "red lamp on the desk")
    assert answer.degraded == ()
    for passage in answer.passages:
        assert (passage.scores.rerank is None) == passage.text.startswith("desk")
        assert passage.score == (passage.scores.fused if passage.scores.rerank is None else passage.scores.rerank)
    fetch(library, "DELETE FROM tokens_1 RETURNING 1")
    bare, plain = ask(searcher, library, "red lamp"), ask(searcher, library, "red lamp", rerank="none")
    assert [p.scores for p in bare.passages] == [p.scores for p in plain.passages]


def test_a_model_without_token_vectors_answers_in_the_fused_order(library: World, searcher: Searcher) -> None:
    class Plain(FakeEmbedder):
        token_bits = 0

        def embed_queries_with_tokens(self, texts: Sequence[str]) -> Any:
            return self.embed_queries(texts), []

    answer = ask(replace(searcher, embedder=Plain()), library, "red lamp")
    assert answer.degraded == () and [p.scores.rerank for p in answer.passages] == [None] * len(TEXTS)


class Asleep(LateInteraction):
    """Late interaction that takes its time."""

    def score(self, question: Any, passages: Any) -> list[float | None]:
        time.sleep(5)
        return super().score(question, passages)


@contextmanager
def asleep(searcher: Searcher) -> Iterator[Searcher]:
    """A searcher whose reranker sleeps for 5 s, and has the default's box."""
    box = late_interaction()[LATE]
    slow = Searcher(searcher.store, searcher.embedder, searcher.lexical, {LATE: replace(box, reranker=Asleep())})
    try:
        yield slow
    finally:
        slow.threads.shutdown(wait=False, cancel_futures=True)


def test_a_reranker_that_sleeps_is_left_behind_at_its_own_time(library: World, searcher: Searcher) -> None:
    plain = ask(searcher, library, "red lamp on the desk", rerank="none")
    with asleep(searcher) as slow:
        started = time.monotonic()
        answer = ask(slow, library, "red lamp on the desk")
        assert time.monotonic() - started < 3  # its box is 1 s, the search's deadline 10 s, and it sleeps for 5 s
    assert answer.degraded == ("rerank",)
    assert [p.scores for p in answer.passages] == [p.scores for p in plain.passages]
    assert [s.detail for s in answer.activity if s.stage == "rerank"] == [{"failed": "deadline_exceeded"}]


# --- the blend ----------------------------------------------------------------------------------------------------


def test_weights_at_the_ends_are_either_order() -> None:
    ordered = [FusedCandidate(i, fused) for i, fused in enumerate((0.9, 0.8, 0.5, 0.1))]
    new = [0.2, 0.9, 0.1, 0.5]
    assert [c.chunk_id for c in blend(ordered, new, 0.0)] == [0, 1, 2, 3]
    assert [c.chunk_id for c in blend(ordered, new, 1.0)] == [1, 3, 0, 2]


def test_what_lies_beyond_the_pool_stands_where_its_fused_score_puts_it() -> None:
    ordered = [FusedCandidate(i, fused) for i, fused in enumerate((1.0, 0.8, 0.75, 0.7))]
    blended = blend(ordered, [0.1, 0.9, 0.9], 1.0)  # the first comes to 0.85 - sqrt(2) · 0.108
    assert [c.chunk_id for c in blended] == [1, 2, 3, 0]
    assert blended[2] == ordered[3]


def test_equal_fused_scores_are_told_apart_by_the_new_ones() -> None:
    ordered = [FusedCandidate(i, 0.5) for i in range(3)]
    assert [c.chunk_id for c in blend(ordered, [0.1, 0.3, 0.2], 0.3)] == [1, 2, 0]
    assert [c.chunk_id for c in blend(ordered, [0.2, 0.2, 0.2], 0.3)] == [0, 1, 2]
    assert blend([], [], 0.3) == []
