"""The dense leg by this host's replica: right at every share, as fresh as Postgres, and never in an answer's way."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.paired_approximate import clustered, make_world
from bench.world import Bench
from core.labels import make_labels
from core.records import AccessScope, Labels, SearchAnswer, SearchRequest
from retrieval import bm25 as words
from retrieval import matrix
from retrieval.dense import DEPTH, nearest_in
from retrieval.follower import Follower
from retrieval.legs import look
from retrieval.replica import folder_of, read
from retrieval.replica_index import ReplicaIndex
from retrieval.search import Searcher, search
from store import access, documents, erase, following
from store.chunks import Scan
from store.pool import open_store, reading_tenant, set_scope, writing
from tests.conftest import World
from tests.integration.test_dense import QUESTIONS, SETS, Large, load

NEAR_TIE = 2e-5  # by which the rounding to 16 bits can put one in front of another


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """As a process does at its start: a leg's time is not for that."""
    words.compile_loops()
    matrix.compile_loops()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "replicas"


@pytest.fixture
def large(world: World, database_url: str, root: Path) -> Large:
    made = load(world, database_url, 1)
    Follower(world.store, root).step()
    return made


@pytest.fixture
def searcher(world: World, root: Path) -> Iterator[Searcher]:
    yield from searching(world, root)


def searching(world: World, root: Path, **more: Any) -> Iterator[Searcher]:
    index = ReplicaIndex(world.store, root, watch_s=0, **more)
    opened = Searcher(world.store, world.embedder, index)
    yield opened
    opened.threads.shutdown(cancel_futures=True)
    index.close()


def route(answer: SearchAnswer) -> str:
    return next(str(stage.detail["route"]) for stage in answer.activity if stage.stage == "dense")


def ask(searcher: Searcher, world: World, query: str = "text", subject: str = "user:ana", **more: Any) -> SearchAnswer:
    return search(searcher, world.who(subject), SearchRequest(query, **more))


def texts(answer: SearchAnswer) -> set[str]:
    return {passage.text for passage in answer.passages}


def by_replica(
    large: Large, index: ReplicaIndex, scope: AccessScope, question: Any, k: int = DEPTH
) -> dict[int, float]:
    with reading_tenant(large.world.store, scope.tenant_id) as conn:
        set_scope(conn, scope)
        sight = look(conn, index, Scan(scope, large.world.profile.id))
        assert sight is not None
        found = nearest_in(sight, [question], k)
    assert (found.route, found.visible) == ("replica", int(np.isin(large.label_sets, scope.label_set_ids).sum()))
    return {candidate.chunk_id: candidate.score for candidate in found.lists[0]}


def test_it_finds_the_nearest_at_every_share_and_is_never_short(large: Large, root: Path) -> None:
    index = ReplicaIndex(large.world.store, root, watch_s=0)
    row = {int(chunk_id): n for n, chunk_id in enumerate(large.chunk_ids)}
    halves = large.vectors.astype(np.float16).astype(np.float64)
    for share in (1.0, 0.6, 0.2, 0.02):
        for number, question in enumerate(QUESTIONS[:4]):
            scope = large.scope(share, number)
            found, truth = by_replica(large, index, scope, question), large.truth(scope, question)
            scores = {chunk_id: halves[row[chunk_id]] @ question.astype(np.float16) for chunk_id in {*found, *truth}}
            assert found == pytest.approx({chunk_id: scores[chunk_id] for chunk_id in found}, abs=NEAR_TIE)
            last = scores[truth[-1]]
            assert len(found) == len(truth) and all(abs(scores[i] - last) < NEAR_TIE for i in {*found} ^ {*truth})
    index.close()


def test_nothing_foreign_in_a_hundred_scopes(large: Large, root: Path) -> None:
    index, chance = ReplicaIndex(large.world.store, root, watch_s=0), random.Random(2)
    owner = dict(zip(large.chunk_ids.tolist(), large.label_sets.tolist(), strict=True))
    for number in range(100):
        scope = large.scope(chance.choice((0.02, 0.3, 0.7, 0.95)), number)
        found = by_replica(large, index, scope, chance.choice(QUESTIONS))
        assert found and all(owner[chunk_id] in scope.label_set_ids for chunk_id in found)
    index.close()


def test_what_is_hidden_moves_no_bit(world: World, database_url: str, root: Path) -> None:
    """The same visible chunks with and without hidden ones: the same rows in the same order by the same scores."""
    bench = Bench(world.store, database_url, world.tenant_id, world.profile)
    visible, hidden = clustered(700, 1), clustered(700, 2)
    twins = [make_world(bench, name, visible, more) for name, more in (("alone", hidden[:0]), ("beside", hidden))]
    Follower(world.store, root).step()
    index = ReplicaIndex(world.store, root, watch_s=0)
    for question in clustered(60, 3):
        answers = []
        for twin in twins:
            with reading_tenant(world.store, twin.scope.tenant_id) as conn:
                set_scope(conn, twin.scope)
                sight = index.look(conn, Scan(twin.scope, world.profile.id))
                answers.append([(twin.rows[c.chunk_id], c.score) for c in sight.nearest([question], 100)[0]])
        assert answers[0] == answers[1] and len(answers[0]) == 100
    index.close()


def test_a_search_needs_one_connection_and_tells_the_way(
    large: Large, root: Path, app_url: str, maintenance_url: str
) -> None:
    """Its legs take none: a pool of one would keep them waiting for the search's own."""
    large.world.groups({f"group:g{number}": ["user:ana"] for number in range(SETS)})
    narrow = replace(large.world, store=open_store(app_url, maintenance_url, size=1))
    for searcher in searching(narrow, root):
        answer = ask(searcher, narrow, rerank="none")
        assert (route(answer), answer.degraded) == ("replica", ()) and answer.passages
    narrow.store.close()


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_every_change_holds_at_the_next_search(world: World, searcher: Searcher, root: Path, mode: Any) -> None:
    """The follower has stopped: nothing is moved, taken out or put in but by the search."""
    kept, moved, gone, other = (world.add(name, f"lamp {name}") for name in ("kept", "moved", "gone", "other"))
    hidden = world.add("hidden", "lamp hidden", ("user:ben",))
    Follower(world.store, root).step()

    def told() -> set[str]:
        answer = ask(searcher, world, "lamp", mode=mode)
        assert (route(answer), answer.degraded) == ("replica", ())
        return texts(answer)

    assert told() == {"lamp kept", "lamp moved", "lamp gone", "lamp other"}
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, moved.document_id, Labels(("user:ben",)))
        erase.take_away(conn, world.tenant_id, gone.document_id, "service:test")
        documents.change_labels(conn, world.tenant_id, hidden.document_id, Labels(("user:ana",)))
    assert told() == {"lamp kept", "lamp other", "lamp hidden"}
    world.add("other", "lamp anew")
    world.add("more", "lamp more")
    assert told() == {"lamp kept", "lamp anew", "lamp hidden", "lamp more"}
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, kept.document_id, Labels(("group:g",)))
    assert "lamp kept" not in told()
    world.groups({"group:g": ["user:ana"]})
    assert "lamp kept" in told()
    world.groups({"group:g": []})
    assert "lamp kept" not in told()
    with writing(world.store) as conn:
        label_set = access.intern_labels(conn, world.tenant_id, Labels(("public",)))
        access.relabel_set(conn, world.tenant_id, label_set, make_labels(["public"], ["user:ana"]))
    assert told() == {"lamp hidden"}


def test_without_vectors_on_this_host_postgres_answers(world: World, root: Path) -> None:
    """Openly, and not as an answer that lacks something."""
    world.add("d", "lamp")
    for kept, used in ((False, True), (True, False), (False, False), (True, True)):
        Follower(world.store, root, vectors=kept).step()
        files = list(folder_of(root, world.tenant_id, world.profile.id).glob("*.vectors"))
        assert bool(files) == kept
        for searcher in searching(world, root, vectors=used):
            answer = ask(searcher, world, "lamp")
            assert (route(answer), answer.degraded) == ("replica" if kept and used else "exact", ())
            assert texts(answer) == {"lamp"}


def test_without_a_replica_the_dense_leg_is_whole(world: World, searcher: Searcher) -> None:
    world.add("d", "lamp")
    answer = ask(searcher, world, "lamp", mode="dense")
    assert (route(answer), answer.degraded, texts(answer)) == ("exact", (), {"lamp"})
    assert ask(searcher, world, "lamp").degraded == ("lexical",)


def test_far_behind_the_dense_leg_is_whole(
    world: World, searcher: Searcher, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.replica_index.FRESH_CHUNKS", 2)
    Follower(world.store, root).step()
    for number in range(4):
        world.add(f"d{number}", f"lamp {number}")
    answer = ask(searcher, world, "lamp", mode="dense")
    assert (route(answer), answer.degraded, len(answer.passages)) == ("exact", (), 4)


def test_a_look_that_takes_too_long_is_cut_and_the_search_goes_on(
    world: World, searcher: Searcher, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the log of changes since the replica is very long; what was begun there is undone alone."""
    world.add("d", "lamp")
    Follower(world.store, root).step()
    monkeypatch.setattr("retrieval.legs.LOOK_S", 0.05)
    slow = "SELECT pg_sleep(CASE WHEN current_setting('statement_timeout') = '50ms' THEN 5 ELSE 0 END)"
    monkeypatch.setattr(
        following, "CHANGED", following.CHANGED.replace("FROM tenants t", f"FROM ({slow}) s, tenants t")
    )
    answer = ask(searcher, world, "lamp")
    assert (route(answer), answer.degraded, texts(answer)) == ("exact", (), {"lamp"})
    assert [stage.detail for stage in answer.activity if stage.stage == "look"] == [{"failed": "statement_timeout"}]


def test_a_process_does_not_wait_for_its_replica_to_be_read(world: World, root: Path) -> None:
    world.add("d", "lamp")
    Follower(world.store, root).step()
    index = ReplicaIndex(world.store, root, watch_s=60)
    searcher = Searcher(world.store, world.embedder, index)
    assert route(ask(searcher, world, "lamp", mode="dense")) == "exact"
    index.refresh()  # as the thread does that watches
    assert route(ask(searcher, world, "lamp", mode="dense")) == "replica"
    searcher.threads.shutdown()
    index.close()


def test_an_erased_vector_leaves_the_files(world: World, root: Path) -> None:
    for number in range(6):
        world.add(f"d{number}", f"lamp {number}")
    secret = world.add("secret", "zanzibar lamp")
    follower, folder = Follower(world.store, root, erase_after_s=0), folder_of(root, world.tenant_id, world.profile.id)
    follower.step()
    part = read(folder).replica.parts[0]
    place = part.segment.find(
        np.array([[secret.document_id.int >> 64], [secret.document_id.int & (2**64 - 1)]], np.uint64)
    )
    assert part.matrix is not None
    rows = np.flatnonzero(part.segment.document == place[0])
    needles = [part.matrix.high[row].tobytes() for row in rows] + [part.matrix.low[row].tobytes() for row in rows]

    def held() -> bool:
        content = b"".join(path.read_bytes() for path in folder.glob("*.vectors"))
        return any(needle in content for needle in needles)

    assert needles and held()
    with writing(world.store) as conn:
        erase.take_away(conn, world.tenant_id, secret.document_id, "service:test")
    follower.step()  # sees it
    follower.step()  # and has rewritten what held it
    assert not held()
    assert sum(len(part.segment) for part in read(folder).replica.parts) == 6
