"""Quality degrades, permission never does: slow and broken stages, and a database that is gone."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from core.errors import DeadlineExceeded, Invalid, Overloaded, StoreUnavailable
from core.records import SearchAnswer, SearchRequest
from models.fake_embedder import FakeEmbedder
from retrieval.lexical import RankBm25Index
from retrieval.rerank import Boxed
from retrieval.search import SEARCHES, Searcher, search
from tests.conftest import World


class Slow(FakeEmbedder):
    """An embedder whose questions take their time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def embed_queries(self, texts: Sequence[str]) -> Any:
        time.sleep(self.seconds)
        return super().embed_queries(texts)


class Broken(FakeEmbedder):
    """An embedder that cannot answer now."""

    def embed_queries(self, texts: Sequence[str]) -> Any:
        raise DeadlineExceeded("no answer from the model")


class BrokenIndex:
    """A lexical engine whose store is away."""

    def look(self, *arguments: Any) -> Any:
        raise StoreUnavailable("the replica is gone")

    def search(self, *arguments: Any) -> Any:
        raise StoreUnavailable("the replica is gone")


class SlowReranker:
    """A reranker that takes its time."""

    reads = "text"

    def score(self, question: Any, passages: Sequence[Any]) -> list[float | None]:
        time.sleep(6)
        return [0.0] * len(passages)


class BrokenReranker:
    """A reranker with a mistake in it."""

    reads = "text"

    def score(self, question: Any, passages: Sequence[Any]) -> list[float | None]:
        raise ZeroDivisionError


@pytest.fixture
def library(world: World) -> World:
    """A document that Ana sees and one that she does not."""
    world.add("seen", "the red lamp", ("public",))
    world.add("hidden", "the red lamp of Ben", ("user:ben",))
    return world


@contextmanager
def like(searcher: Searcher, **changes: Any) -> Iterator[Searcher]:
    """A searcher with other parts, its threads its own."""
    fresh = Searcher(searcher.store, searcher.embedder, RankBm25Index(searcher.store))
    try:
        yield replace(fresh, **changes)
    finally:
        fresh.threads.shutdown(wait=False, cancel_futures=True)


def ask(searcher: Searcher, world: World, **more: Any) -> SearchAnswer:
    """As Ana."""
    return search(searcher, world.who("user:ana"), SearchRequest("red lamp", **more))


def names(answer: SearchAnswer) -> list[str]:
    """What was found."""
    return [passage.citation.external_id for passage in answer.passages]


def test_a_slow_embedder_leaves_the_lexical_answer_within_the_deadline(library: World, searcher: Searcher) -> None:
    with like(searcher, embedder=Slow(6), deadline_s=1.5) as slow:
        started = time.monotonic()
        answer = ask(slow, library)
        assert time.monotonic() - started < 5  # the embedder's own time would be more
    assert (names(answer), answer.degraded) == (["seen"], ("dense", "rerank"))
    assert [s.detail for s in answer.activity if s.stage == "dense"] == [{"failed": "deadline_exceeded"}]


def test_a_broken_embedder_leaves_the_lexical_answer(library: World, searcher: Searcher) -> None:
    with like(searcher, embedder=Broken()) as broken:
        answer = ask(broken, library)
        assert (names(answer), answer.degraded) == (["seen"], ("dense", "rerank"))
        assert ask(broken, library, mode="lexical").degraded == ()
        alone = ask(broken, library, mode="dense")
        assert (names(alone), alone.degraded) == ([], ("dense",))  # empty, and it says why


def test_a_broken_lexical_engine_leaves_the_dense_answer(library: World, searcher: Searcher) -> None:
    with like(searcher, lexical=BrokenIndex()) as broken:
        answer = ask(broken, library)
    assert (names(answer), answer.degraded) == (["seen"], ("lexical",))
    assert [s.detail for s in answer.activity if s.stage == "lexical"] == [{"failed": "store_unavailable"}]


def test_a_statement_that_outlasts_the_deadline_is_ended(library: World, searcher: Searcher, database_url: str) -> None:
    with psycopg.connect(database_url) as admin:
        admin.execute("LOCK TABLE vectors_1 IN ACCESS EXCLUSIVE MODE")
        with like(searcher, deadline_s=1.0) as hurried:
            started = time.monotonic()
            answer = ask(hurried, library)
            assert time.monotonic() - started < 8  # less than the wait for a lock that a session allows
        assert sorted(answer.degraded) == ["dense", "lexical"] and not answer.passages
        give_up = time.monotonic() + 8
        while admin.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (0,):
            assert time.monotonic() < give_up, "the statement outlives its search"
            time.sleep(0.1)


def test_a_slow_reranker_leaves_the_fused_order(library: World, searcher: Searcher) -> None:
    with like(searcher, rerankers={"slow": Boxed(SlowReranker(), box_s=0.5)}) as slow:
        started = time.monotonic()
        answer = ask(slow, library, rerank="slow")
        assert time.monotonic() - started < 3  # its own box, not the search's deadline of 10 s
    assert (names(answer), answer.degraded) == (["seen"], ("rerank",))
    assert [p.scores.rerank for p in answer.passages] == [None]


def test_a_broken_reranker_leaves_the_fused_order(library: World, searcher: Searcher) -> None:
    with like(searcher, rerankers={"broken": Boxed(BrokenReranker(), box_s=5)}) as broken:
        answer = ask(broken, library, rerank="broken")
    assert (names(answer), answer.degraded) == (["seen"], ("rerank",))
    assert [s.detail for s in answer.activity if s.stage == "rerank"] == [{"failed": "internal"}]


def test_a_hung_embedder_does_not_take_the_other_leg_with_it(library: World, searcher: Searcher) -> None:
    """Legs that nobody waits for any more keep their threads; they must not be those of the lexical leg."""
    with like(searcher, embedder=Slow(9), deadline_s=1.0) as hung:
        for _ in range(SEARCHES + 2):
            answer = ask(hung, library)
            assert (names(answer), answer.degraded) == (["seen"], ("dense", "rerank"))


def test_too_many_searches_at_once_are_told(library: World, searcher: Searcher) -> None:
    with like(searcher, slots=threading.Semaphore(1), deadline_s=0.2) as narrow:
        narrow.slots.acquire()
        with pytest.raises(Overloaded):
            ask(narrow, library)
        narrow.slots.release()
    with like(searcher, slots=threading.Semaphore(1), deadline_s=10) as narrow:
        assert names(ask(narrow, library)) == ["seen"]
        assert names(ask(narrow, library)) == ["seen"]  # a search gives its place back


def test_a_search_that_fails_gives_its_place_back(library: World, searcher: Searcher) -> None:
    with like(searcher, slots=threading.Semaphore(1), deadline_s=10) as narrow:
        for _ in range(3):
            with pytest.raises(Invalid, match="not blank"):
                search(narrow, library.who("user:ana"), SearchRequest(" "))
        assert names(ask(narrow, library)) == ["seen"]


def test_without_postgres_there_is_no_answer(library: World, searcher: Searcher, database_url: str) -> None:
    assert names(ask(searcher, library)) == ["seen"]
    with psycopg.connect(database_url, autocommit=True) as admin:
        name = admin.info.dbname
        with psycopg.connect(database_url.replace(name, "postgres"), autocommit=True) as other:
            other.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                          "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
            with pytest.raises(StoreUnavailable):
                ask(searcher, library)
            other.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
    assert names(patient(searcher, library)) == ["seen"]  # and it comes back without a restart


def patient(searcher: Searcher, world: World) -> SearchAnswer:
    """Ask until the pool has live connections again."""
    for _ in range(50):
        try:
            answer = ask(searcher, world)
        except StoreUnavailable:
            time.sleep(0.1)
            continue
        if not answer.degraded:
            return answer
    raise AssertionError("the searcher did not recover")
