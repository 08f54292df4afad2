"""An answer given again is the answer that the search would give, to the same person alone, and from Redis alone comes
nothing."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from api.answers import search_out
from cli.service import MAX_ANSWERS_S
from core.labels import make_labels
from core.records import AccessScope, Fusion, Principal, Profile, SearchAnswer, SearchRequest
from core.trained import TrainedReranker
from embedded.redis import start_redis
from embedded.server import Server
from ingest.erase import erase
from retrieval.breaker import REST_S, Breaker
from retrieval.recall import Asked, KeptAnswers
from retrieval.rerank import late_interaction
from retrieval.search import Searcher, search
from store import access, documents
from store.answers import MAX_VALUE, RedisPlaces
from store.pool import reading_tenant, writing
from store.profiles import set_fusion
from store.standing import HOLDS_HOURS, KEPT_HOURS, standing, stands, trim_changes
from tests.conftest import World
from tests.integration.rows import fetch
from tests.places import MemoryPlaces

ANA, BEN = "user:ana", "user:ben"
RED = "the red lamp stands on the old desk of the harbour office, number "


@pytest.fixture
def library(world: World) -> World:
    """Public documents, one in several chunks, and one each of two groups."""
    world.groups({"group:a": [ANA], "group:b": [BEN]})
    for number in range(5):
        world.add(f"d{number}", RED + str(number))
    world.add("long", "\n\n".join(f"Lamp {n}. " + "red harbour light " * 60 for n in range(6)), title="Lamps")
    world.add("of a", "the red lamp of a", ("group:a",))
    world.add("of b", "the red lamp of b", ("group:b",))
    return world


@pytest.fixture
def kept(searcher: Searcher) -> Searcher:
    """The searcher, which keeps its answers in memory, and leaves none of them without its reranking."""
    breaker = Breaker("the answer cache", slow_s=30)  # a busy machine is not a cache that is down
    return replace(searcher, rerankers=late_interaction(30), answers=KeptAnswers(MemoryPlaces(), "test", breaker))


def ask(searcher: Searcher, world: World, who: str = ANA, query: str = "red lamp", **more: Any) -> SearchAnswer:
    """All that somebody is told."""
    return search(searcher, world.who(who), SearchRequest(query, **more))


def told(answer: SearchAnswer) -> dict[str, Any]:
    """As it goes out to an operator, without what each answer has of its own."""
    body = search_out(answer, operator=True)
    return {**body, "request_id": None, "activity": [{**stage, "ms": 0} for stage in body["activity"]]}


REQUESTS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "dense"},
    {"mode": "lexical", "top_k": 3},
    {"rerank": "none", "queries": ("harbour light",)},
    {"top_k": 2, "max_tokens": 60},
    {"top_k": 50, "filters": {"external_id": {"$in": ["d1", "long", "of b"]}}},
    {"query": "nothing that anybody wrote", "mode": "lexical"},
)


@pytest.mark.parametrize("more", REQUESTS)
def test_given_again_an_answer_is_the_same(library: World, kept: Searcher, more: dict[str, Any]) -> None:
    first, again = ask(kept, library, **more), ask(kept, library, **more)
    assert (first.recalled, again.recalled) == (False, True)
    assert told(first) == told(again) == told(ask(replace(kept, answers=None), library, **more))
    assert first.request_id != again.request_id


def test_an_answer_given_again_has_its_row_in_the_audit(library: World, kept: Searcher) -> None:
    first, again = ask(kept, library), ask(kept, library)
    rows = dict(fetch(library, "SELECT request_id, detail FROM audit_log WHERE action = 'search'"))
    assert again.recalled and rows[first.request_id] == rows[again.request_id]
    assert rows[again.request_id]["documents"]


def test_what_explains_is_found_out_anew(library: World, kept: Searcher) -> None:
    assert not any(ask(kept, library, explain=True).recalled for _ in range(2))


def test_what_went_without_a_stage_is_not_kept(library: World, kept: Searcher) -> None:
    class Away:
        def search(self, *arguments: Any) -> Any:
            raise TimeoutError

    broken = replace(kept, lexical=Away())  # type: ignore[arg-type]
    assert ask(broken, library).degraded == ("lexical",)
    whole = ask(kept, library)
    assert (whole.recalled, whole.degraded) == (False, ())


# --- whose it is --------------------------------------------------------------------------------------------------

LABELS = st.sampled_from(["user:a", "user:b", "group:a", "public", "user:a', 'user:b"])
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from([UUID(int=1), UUID(int=2)]),
    LABELS,
    st.none() | st.lists(LABELS, max_size=2).map(tuple),
    st.none() | st.sampled_from(["internal", "public"]),
    st.booleans(),
    st.none() | LABELS,
    st.lists(LABELS, max_size=2).map(tuple),
)
SCOPES = st.builds(
    AccessScope, st.just(UUID(int=1)), st.just(""), st.lists(st.integers(1, 20), unique=True, max_size=3).map(tuple),
    st.integers(1, 3),
)  # fmt: skip
PROFILES = st.builds(
    Profile, st.integers(1, 2), st.just("p"), st.just("m"), st.just(8), st.just("f32"), st.just(200), st.just("s")
)
FUSIONS = st.builds(Fusion, st.sampled_from(["convex", "rrf"]), st.sampled_from([0.4, 0.5]))
ASKING = st.builds(
    SearchRequest, st.sampled_from(["lamp", "lamps"]), st.lists(st.sampled_from(["lamp", "x"]), max_size=2).map(tuple),
    st.sampled_from([1, 8]), st.sampled_from(["hybrid", "dense"]),
    st.none() | st.sampled_from([{"metadata.n": 1}, {"metadata.n": True}, {"metadata.n": "1"}, {"metadata.n": 1.0}]),
)  # fmt: skip
RERANKERS = st.builds(
    TrainedReranker, st.sampled_from(["a", "b"]), st.sampled_from(["late", "cross-encoder"]),
    st.sampled_from(["0a", "0b"]), st.sampled_from([0.4, 0.5]), st.sampled_from([10, 50]), st.integers(1, 2),
)  # fmt: skip
ASKED = st.builds(Asked, PRINCIPALS, SCOPES, PROFILES, FUSIONS, ASKING, RERANKERS)


def parts(asked: Asked) -> tuple[Any, ...]:
    """What it consists of, in which True is not 1 and the order of label sets means nothing."""
    ids, epoch = frozenset(asked.scope.label_set_ids), asked.scope.epoch
    request = {**{name: getattr(asked.request, name) for name in ("query", "queries", "top_k", "mode")},
               "filters": str(asked.request.filters)}  # fmt: skip
    return asked.principal, ids, epoch, asked.profile, asked.fusion, asked.reranker, request


VARIED = {
    "principal": ("tenant_id", "subject", "ceiling", "max_classification", "bypass", "via", "claims"),
    "scope": ("label_set_ids", "epoch"),
    "profile": ("id",),
    "fusion": ("method", "dense_weight"),
    "reranker": ("name", "kind", "digest", "weight", "pool", "profile_id"),
    "request": ("query", "queries", "top_k", "mode", "filters"),
}


@given(ASKED, ASKED)
def test_two_who_differ_in_anything_share_no_key(one: Asked, other: Asked) -> None:
    for part, names in VARIED.items():
        for name in names:  # in this one thing at most
            held = replace(getattr(one, part), **{name: getattr(getattr(other, part), name)})
            beside = replace(one, **{part: held})
            assert (one.told("e") == beside.told("e")) == (parts(one) == parts(beside)), (part, name)
    assert (one.told("e") == other.told("e")) == (parts(one) == parts(other))
    assert one.told("e") != one.told("another engine")


def test_nobody_is_told_anothers_answer(library: World, kept: Searcher) -> None:
    for who in (ANA, BEN):
        names = {passage.citation.external_id for passage in ask(kept, library, who, top_k=50).passages}
        assert ("of a" in names, "of b" in names) == (who == ANA, who == BEN)
    ceiling = Principal(library.tenant_id, ANA, ceiling=("public",))
    answer = search(kept, ceiling, SearchRequest("red lamp", top_k=50))
    assert not answer.recalled and all(passage.citation.external_id != "of a" for passage in answer.passages)


# --- what ends it -------------------------------------------------------------------------------------------------


def _id(world: World, external_id: str) -> UUID:
    ((found,),) = fetch(world, "SELECT id FROM documents WHERE external_id = %s", external_id)
    return UUID(str(found))


def relabel(world: World) -> None:
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, _id(world, "d1"), make_labels(["group:b"]))


def delete(world: World) -> None:
    erase(world.store, world.blobs, world.tenant_id, _id(world, "d1"), by="service:test")


def metadata(world: World) -> None:
    fetch(world, "UPDATE documents SET metadata = '{\"n\": 2}' WHERE external_id = 'd1' RETURNING 1")


def rename(world: World) -> None:
    fetch(world, "UPDATE documents SET external_id = 'd9' WHERE external_id = 'd1' RETURNING 1")


def fusion(world: World) -> None:
    with writing(world.store) as conn:
        set_fusion(conn, world.tenant_id, Fusion("rrf"))


ENDS: dict[str, Callable[[World], Any]] = {
    "another label": relabel,
    "deleted": delete,
    "other metadata": metadata,
    "renamed": rename,
    "another fusion": fusion,
    "a new version": lambda world: world.add("d1", RED + "eleven"),
    "a new document": lambda world: world.add("d7", RED + "seven"),
    "one that comes into sight": lambda world: world.groups({"group:a": [ANA], "group:b": [ANA, BEN]}),
    "one that goes out of sight": lambda world: world.groups({"group:b": [BEN]}),
    "deleted by its source's end": lambda world: fetch(world, "DELETE FROM sources RETURNING 1"),
}


@pytest.mark.parametrize("change", ENDS)
def test_no_answer_outlives_a_change(library: World, kept: Searcher, change: str) -> None:
    more: dict[str, Any] = {"top_k": 50, "filters": {"metadata.n": {"$ne": 2}}}
    before = told(ask(kept, library, **more))
    assert ask(kept, library, **more).recalled
    ENDS[change](library)
    after = ask(kept, library, **more)
    assert not after.recalled and told(after) != before
    assert told(after) == told(ask(replace(kept, answers=None), library, **more))


def test_changes_that_somebody_does_not_see_end_no_answer_of_hers(library: World, kept: Searcher) -> None:
    ask(kept, library)
    fetch(library, "UPDATE documents SET metadata = '{\"n\": 2}' WHERE external_id = 'of b' RETURNING 1")
    library.add("more of b", "the red lamp of b", ("group:b",))
    erase(library.store, library.blobs, library.tenant_id, _id(library, "of b"), by="service:test")
    library.submit("d1", "not indexed yet, of a document that nobody has", source="other")
    fetch(library, "UPDATE documents SET fingerprint = 'x' WHERE external_id = 'd1' RETURNING 1")
    again = ask(kept, library)
    assert again.recalled and told(again) == told(ask(replace(kept, answers=None), library))


def test_what_commits_late_ends_what_was_kept_meanwhile(library: World, kept: Searcher, maintenance_url: str) -> None:
    with psycopg.connect(maintenance_url) as late:
        late.execute("UPDATE documents SET uri = 'x:late' WHERE external_id = 'd1'")
        library.add("later", "another text")  # committed first
        ask(kept, library, top_k=50)
        assert ask(kept, library, top_k=50).recalled
        late.commit()
    after = ask(kept, library, top_k=50)
    assert not after.recalled and "x:late" in {passage.citation.uri for passage in after.passages}


def test_a_snapshot_recalls_nothing_later_than_itself(library: World) -> None:
    with reading_tenant(library.store, library.tenant_id) as old:
        access.enter_scope(old, library.who(ANA))
        rename(library)
        with reading_tenant(library.store, library.tenant_id) as new:
            access.enter_scope(new, library.who(ANA))
            at = standing(new, library.tenant_id, 1)
            assert stands(new, library.tenant_id, 1, at)
        assert not stands(old, library.tenant_id, 1, at)


def test_nothing_is_recalled_in_a_database_that_lost_its_log(library: World, kept: Searcher) -> None:
    ask(kept, library)
    fetch(library, "DELETE FROM change_log WHERE seq = (SELECT max(seq) FROM change_log) RETURNING 1")
    assert not ask(kept, library).recalled


def test_upkeep_drops_only_what_is_older_than_any_answer(library: World) -> None:
    assert trim_changes(library.store) == 0
    fetch(library, "UPDATE label_set_changes SET at = at - interval '25 hours' RETURNING 1")
    assert trim_changes(library.store) > 0 and fetch(library, "SELECT FROM label_set_changes") == []


def test_nothing_stands_for_longer_than_changes_are_noted(library: World) -> None:
    """As a value does that somebody put back into Redis when the notes of what it missed are dropped."""
    with reading_tenant(library.store, library.tenant_id) as conn:
        access.enter_scope(conn, library.who(ANA))
        at = standing(conn, library.tenant_id, 1)
        older = replace(at, noted=at.noted - HOLDS_HOURS * 3600 - 1)
        assert stands(conn, library.tenant_id, 1, at) and not stands(conn, library.tenant_id, 1, older)
    assert HOLDS_HOURS * 2 <= KEPT_HOURS and MAX_ANSWERS_S <= HOLDS_HOURS * 3600


def test_in_any_order_of_changes_recalled_and_found_out_are_the_same(library: World, kept: Searcher) -> None:
    chance, recalled = random.Random(7), 0
    plain = replace(kept, answers=None)
    names = [f"d{number}" for number in range(5)]
    steps: list[Callable[[], Any]] = [
        lambda: library.add(chance.choice(names), RED + str(chance.random()), (chance.choice(["public", "group:a"]),)),
        lambda: library.groups({"group:a": [ANA], "group:b": chance.choice([[BEN], [ANA, BEN]])}),
        lambda: library.add("of b", f"the red lamp of b {chance.random()}", ("group:b",)),
        lambda: fetch(library, "UPDATE documents SET uri = %s WHERE external_id = %s RETURNING 1",
                      str(chance.random()), chance.choice(names)),  # fmt: skip
        lambda: None,
    ]  # fmt: skip
    for _ in range(20):
        chance.choice(steps)()
        for who in (ANA, BEN):
            more = chance.choice([{}, {"mode": "dense"}])
            answer = ask(kept, library, who, **more)
            assert told(answer) == told(ask(plain, library, who, **more))
            recalled += answer.recalled
    assert 5 < recalled < 35


# --- Redis --------------------------------------------------------------------------------------------------------


@contextmanager
def over_redis(searcher: Searcher, url: str) -> Iterator[tuple[Searcher, RedisPlaces]]:
    """A searcher that keeps answers there."""
    places = RedisPlaces(url, 64 * MAX_VALUE, 60)
    try:
        yield replace(searcher, rerankers=late_interaction(30), answers=KeptAnswers(places, "test")), places
    finally:
        places.close()


def test_redis_keeps_so_many_bytes_for_so_long(library: World, searcher: Searcher, redis_server: Server) -> None:
    client = redis.Redis.from_url(redis_server.url)
    with over_redis(searcher, redis_server.url) as (kept, places):
        for number in range(2 * places.places):
            places.put(library.tenant_id, number % places.places, b"x" * 100)
        ask(kept, library)
        assert ask(kept, library).recalled
        names = list(client.scan_iter(f"citadel:answer:{library.tenant_id}:*"))
        assert len(names) == places.places and all(0 < client.ttl(name) <= 60 for name in names)  # type: ignore[operator]
        places.put(library.tenant_id, 0, b"x" * (MAX_VALUE + 1))
        assert client.get(f"citadel:answer:{library.tenant_id}:0") == b"x" * 100
        assert not any(b"lamp" in client.get(name) for name in names)  # type: ignore[operator]
        assert kept.answers is not None
        kept.answers.clear(library.tenant_id)
        assert list(client.scan_iter(f"citadel:answer:{library.tenant_id}:*")) == []


def test_who_writes_to_redis_plants_nothing(library: World, kept: Searcher) -> None:
    assert kept.answers is not None
    places = kept.answers.places
    assert isinstance(places, MemoryPlaces)
    ask(kept, library, BEN)
    (bens,) = places.held.values()
    places.clear(library.tenant_id)
    plain = told(ask(kept, library, ANA))
    ((place, anas),) = places.held.items()
    for planted in (bens, b"", b"x" * 200, anas[:-1], anas[:30] + bytes([anas[30] ^ 1]) + anas[31:]):
        places.held[place] = planted
        answer = ask(kept, library, ANA)
        assert not answer.recalled and told(answer) == plain


def test_an_old_value_that_is_put_back_does_not_hold(library: World, kept: Searcher) -> None:
    assert kept.answers is not None
    places = kept.answers.places
    assert isinstance(places, MemoryPlaces)
    ask(kept, library)
    old = dict(places.held)
    relabel(library)
    places.held = old
    answer = ask(kept, library)
    assert not answer.recalled and "d1" not in {passage.citation.external_id for passage in answer.passages}


def test_redis_that_goes_away_mid_run_changes_no_answer(library: World, searcher: Searcher, tmp_path: Any) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o711)
    server = start_redis(folder, durable=False)
    with over_redis(searcher, server.url) as (kept, _):
        first = told(ask(kept, library))
        assert ask(kept, library).recalled
        server.stop()
        for _ in range(5):
            started = time.monotonic()
            answer = ask(kept, library)
            assert time.monotonic() - started < 2 and not answer.recalled
            assert told(answer) == first  # which went without no stage


def test_redis_that_never_replies_is_not_waited_for(library: World, searcher: Searcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        with over_redis(searcher, url) as (kept, _):
            plain = told(ask(searcher, library))
            times = []
            for _ in range(6):
                started = time.monotonic()
                assert told(ask(kept, library)) == plain
                times.append(time.monotonic() - started)
            assert max(times) < 2 and sum(times) < REST_S
            assert min(times[3:]) < 0.1 + min(times[:2])  # it is left alone by then


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_places_keep_what_was_put_last(kind: str, redis_server: Server) -> None:
    places = MemoryPlaces(8) if kind == "memory" else RedisPlaces(redis_server.url, 8 * MAX_VALUE, 60)
    one, other = uuid4(), uuid4()
    assert places.places == 8 and places.get(one, 3) is None
    for value in (b"a", b"\0b"):
        places.put(one, 3, value)
    places.put(other, 3, b"c")
    assert (places.get(one, 3), places.get(one, 4), places.get(other, 3)) == (b"\0b", None, b"c")
    assert places.clear(one) == 1 and (places.get(one, 3), places.get(other, 3)) == (None, b"c")
