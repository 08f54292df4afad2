"""The replica and its follower: in step, late, damaged, killed, and rid of what was erased."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg import sql

from cli.main import citadel
from core.errors import NotYetIndexed, ReplicaUnavailable
from core.records import Candidate, Labels, SearchRequest
from retrieval import follower as following_module
from retrieval.follower import Follower, only_one, status_at
from retrieval.lexical import LexicalIndex, RankBm25Index
from retrieval.replica import MANIFEST, folder_of, read
from retrieval.replica_index import ReplicaIndex
from retrieval.search import Searcher, search
from retrieval.segment import hasher, pairs
from retrieval.traces import traces
from store import access, audit, documents, erase, vectors
from store.chunks import Scan
from store.pool import View, export_snapshot, reading_tenant, writing
from tests.conftest import World
from tests.engines import FollowedAllTheTime

SIXTEEN_BITS = 2e-5  # half a step of 1 / 32639 in each component, and a unit vector
PEOPLE = ("user:ana", "user:ben", "user:cem")
WORDS = ["amber", "basalt", "cedar", "delta", "ember", "flint", "garnet", "heron", "indigo", "jade"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lexical"


@pytest.fixture
def follower(world: World, root: Path) -> Follower:
    """One that erases at the step after the one that sees a deletion."""
    return Follower(world.store, root, erase_after_s=0)


@pytest.fixture
def index(world: World, root: Path) -> ReplicaIndex:
    return ReplicaIndex(world.store, root, watch_s=0)


def place(world: World, root: Path) -> Path:
    return folder_of(root, world.tenant_id, world.profile.id)


@contextmanager
def sight(world: World, subject: str, where: sql.Composable | None = None) -> Iterator[tuple[View, Scan]]:
    with reading_tenant(world.store, world.tenant_id) as conn:
        scope = access.enter_scope(conn, world.who(subject))
        yield View(scope, export_snapshot(conn)), Scan(scope, world.profile.id, where)


def found(
    engine: LexicalIndex, world: World, query: str, subject: str = "user:ana", where: sql.Composable | None = None
) -> list[Candidate]:
    with sight(world, subject, where) as (view, scan):
        return engine.search(query, view, scan, 50, 10)


def near(
    index: ReplicaIndex, world: World, query: str, subject: str = "user:ana", where: sql.Composable | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """All that is visible, nearest first, by the replica and by a scan in Postgres, of one transaction."""
    vector = world.embedder.embed_queries([query])[0]
    with reading_tenant(world.store, world.tenant_id) as conn:
        scan = Scan(access.enter_scope(conn, world.who(subject)), world.profile.id, where)
        sight = index.look(conn, scan)
        assert sight.has_vectors(len(vector))
        return sight.nearest([vector], 1000)[0], vectors.nearest(conn, scan, vector, 1000)


def the_same(one: list[Candidate], two: list[Candidate]) -> None:
    """The same chunks, by scores that differ by the rounding to 16 bits alone, and in the order of their own."""
    assert {c.chunk_id: c.score for c in one} == pytest.approx({c.chunk_id: c.score for c in two}, abs=SIXTEEN_BITS)
    assert one == sorted(one, key=lambda candidate: (-candidate.score, candidate.chunk_id))


def fill(world: World, count: int = 12, name: str = "d") -> list[Any]:
    chance = random.Random(3)
    return [world.add(f"{name}{n}", f"lamp {' '.join(chance.choices(WORDS, k=6))}") for n in range(count)]


def agree(index: ReplicaIndex, world: World, query: str = "lamp amber heron", **more: Any) -> None:
    """The replica's answers are the reference engine's and Postgres', and are not empty."""
    one, two = found(index, world, query, **more), found(RankBm25Index(world.store), world, query, **more)
    assert {c.chunk_id: c.score for c in one} == pytest.approx({c.chunk_id: c.score for c in two}) and one
    here, there = near(index, world, query, **more)
    the_same(here, there)
    assert here


# --- in step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_any_history_is_answered_as_the_reference_does(
    world: World, follower: Follower, index: ReplicaIndex, seed: int
) -> None:
    """Documents come, change, move and go, and the follower steps now and then."""
    chance, names, reference = random.Random(seed), [f"d{n}" for n in range(12)], RankBm25Index(world.store)
    live: dict[str, Any] = {}
    follower.step()
    for _ in range(60):
        name, labels = chance.choice(names), (chance.choice([*PEOPLE, "public", "public"]),)
        turn = chance.random()
        if turn < 0.35:
            live[name] = world.add(name, " ".join(chance.choices(WORDS, k=chance.randint(1, 20))), labels)
        elif turn < 0.5 and name in live:
            with writing(world.store) as conn:
                documents.change_labels(conn, world.tenant_id, live[name].document_id, Labels(labels))
        elif turn < 0.6 and name in live:
            with writing(world.store) as conn:
                erase.take_away(conn, world.tenant_id, live.pop(name).document_id, "service:test")
        elif turn < 0.8:
            follower.step()
        where = sql.SQL("d.external_id < 'd5'") if chance.random() < 0.3 else None
        query, subject = " ".join(chance.choices(WORDS, k=3)), chance.choice(PEOPLE)
        one, two = (found(engine, world, query, subject, where) for engine in (index, reference))
        assert {c.chunk_id: c.score for c in one} == pytest.approx({c.chunk_id: c.score for c in two})
        the_same(*near(index, world, query, subject, where))


def test_a_change_that_commits_late_is_not_lost(
    world: World, follower: Follower, index: ReplicaIndex, root: Path
) -> None:
    fill(world)
    entered, go_on = threading.Event(), threading.Event()
    moved = world.add("moved", "heron that moves")

    def slow() -> None:
        with writing(world.store) as conn:  # takes its seq before the others, and commits after them
            documents.change_labels(conn, world.tenant_id, moved.document_id, Labels(("user:ben",)))
            entered.set()
            go_on.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    entered.wait(10)
    world.add("later", "heron of the later")
    follower.step()
    agree(index, world)
    go_on.set()
    thread.join()
    agree(index, world)
    follower.step()
    agree(index, world)
    stored = read(place(world, root)).replica
    assert sum(int(part.alive().sum()) for part in stored.parts) == 14
    agree(index, world, subject="user:ben")


def test_small_changes_do_not_pile_up(world: World, follower: Follower, index: ReplicaIndex, root: Path) -> None:
    for number in range(40):
        world.add(f"d{number}", f"lamp {number} {WORDS[number % 10]}")
        follower.step()
    parts = read(place(world, root)).replica.parts
    assert len(parts) <= 6 and sum(len(part.segment) for part in parts) == 40
    files = list(place(world, root).iterdir())
    assert len(files) == 1 + 3 * len(parts)
    agree(index, world)


def test_a_step_without_changes_writes_nothing(world: World, follower: Follower, root: Path) -> None:
    fill(world)
    follower.step()
    before = {path: path.stat().st_mtime_ns for path in place(world, root).iterdir()}
    follower.step()
    assert {path: path.stat().st_mtime_ns for path in place(world, root).iterdir()} == before


def test_moving_labels_writes_no_segment(world: World, follower: Follower, root: Path) -> None:
    first = fill(world)[0]
    follower.step()
    segments = set(place(world, root).glob("*.segment"))
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, first.document_id, Labels(("user:ben",)))
    follower.step()
    assert set(place(world, root).glob("*.segment")) == segments


def test_only_its_owner_may_read_the_files(world: World, follower: Follower, root: Path) -> None:
    fill(world)
    follower.step()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (root, root / str(world.tenant_id), place(world, root)))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in place(world, root).iterdir())


def test_the_files_hold_no_word(world: World, follower: Follower, root: Path) -> None:
    world.add("d", "zanzibar lamp", title="Marmalade")
    follower.step()
    content = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert not any(word in content.lower() for word in (b"zanzibar", b"lamp", b"marmalade", b"marmalad"))


# --- late ---------------------------------------------------------------------------------------------------------


def test_a_revoked_document_moves_no_score_at_the_next_search(
    world: World, follower: Follower, index: ReplicaIndex
) -> None:
    sent = fill(world)
    follower.step()
    agree(index, world)
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, sent[0].document_id, Labels(("user:ben",)))
    agree(index, world)  # the follower has not stepped since
    agree(index, world, subject="user:ben")


def test_too_far_behind_it_says_so_and_at_least_waits(
    world: World, follower: Follower, index: ReplicaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.replica_index.FRESH_CHUNKS", 5)
    monkeypatch.setattr("retrieval.replica_index.FRESH_DOCUMENTS", 5)
    follower.step()
    fill(world, 4)
    for number in range(3):
        world.add(f"h{number}", "lamp", ("user:ben",))
    agree(index, world)  # what is hidden does not count
    fill(world, 8, "more")
    with pytest.raises(ReplicaUnavailable, match="more than 5"):
        found(index, world, "lamp")
    searcher = Searcher(world.store, world.embedder, index, at_least_wait_s=0.2)
    answer = search(searcher, world.who("user:ana"), SearchRequest("lamp"))
    assert answer.degraded == ("lexical",) and answer.passages
    with reading_tenant(world.store, world.tenant_id) as conn:
        assert index.lag_s(conn, world.tenant_id) > 0
        seq = 1  # any
    with pytest.raises(NotYetIndexed):
        search(searcher, world.who("user:ana"), SearchRequest("lamp", at_least=seq))
    assert search(searcher, world.who("user:ana"), SearchRequest("lamp", mode="dense", at_least=seq)).passages
    follower.step()
    assert search(searcher, world.who("user:ana"), SearchRequest("lamp", at_least=seq)).degraded == ()
    agree(index, world)
    with reading_tenant(world.store, world.tenant_id) as conn:
        assert index.lag_s(conn, world.tenant_id) == 0
    searcher.threads.shutdown()


def test_a_search_that_began_before_a_step_is_answered_as_of_its_beginning(
    world: World, follower: Follower, index: ReplicaIndex
) -> None:
    fill(world)
    follower.step()
    before = found(index, world, "lamp heron")
    with sight(world, "user:ana") as (view, scan):
        fill(world, 20, "more")
        follower.step()
        index.refresh()
        assert index.search("lamp heron", view, scan, 50, 10) == before
    assert found(index, world, "lamp heron") != before


def test_also_where_the_process_has_the_newer_replica_alone(world: World, follower: Follower, root: Path) -> None:
    sent = fill(world)
    follower.step()
    before = found(RankBm25Index(world.store), world, "lamp heron")
    with sight(world, "user:ana") as (view, scan):
        fill(world, 20, "more")
        with writing(world.store) as conn:
            documents.change_labels(conn, world.tenant_id, sent[0].document_id, Labels(("user:ben",)))
            erase.take_away(conn, world.tenant_id, sent[1].document_id, "service:test")
        follower.step()
        now = ReplicaIndex(world.store, root, watch_s=0).search("lamp heron", view, scan, 50, 10)
    assert {c.chunk_id: c.score for c in now} == pytest.approx({c.chunk_id: c.score for c in before})


# --- damaged ------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {"cut": cut, "flip": flip, "remove": Path.unlink,
                                               "empty": lambda path: path.write_bytes(b"")}  # fmt: skip


@pytest.mark.parametrize("kind", [".segment", ".labels", ".vectors", MANIFEST])
@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_damage_is_not_believed_and_is_mended(
    world: World, follower: Follower, index: ReplicaIndex, root: Path, how: str, kind: str
) -> None:
    fill(world)
    follower.step()
    agree(index, world)  # this process holds what it checked
    for path in place(world, root).glob(f"*{kind}"):
        DAMAGE[how](path)
    fresh = ReplicaIndex(world.store, root, watch_s=0)
    with pytest.raises(ReplicaUnavailable):
        found(fresh, world, "lamp")
    world.add("more", "lamp heron")
    agree(index, world)
    searcher = Searcher(world.store, world.embedder, fresh)
    assert search(searcher, world.who("user:ana"), SearchRequest("lamp")).degraded == ("lexical",)
    searcher.threads.shutdown()
    follower.step()
    for engine in (fresh, index):
        agree(engine, world)


def test_a_deleted_folder_is_made_again_while_searches_go_on(
    world: World, follower: Follower, index: ReplicaIndex, root: Path
) -> None:
    fill(world)
    follower.step()
    agree(index, world)
    shutil.rmtree(root)
    agree(index, world)
    assert "no follower" in index.state()
    follower.step()
    assert index.state() == "ok"
    agree(ReplicaIndex(world.store, root, watch_s=0), world)
    agree(index, world)


def test_a_database_that_was_restored_is_followed_anew(
    world: World, follower: Follower, index: ReplicaIndex, root: Path
) -> None:
    """The replica saw changes that the log, put back to before them, does not have."""
    sent = fill(world)
    follower.step()
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, sent[0].document_id, Labels(("user:ben",)))
    follower.step()
    agree(index, world)
    with writing(world.store) as conn:
        conn.execute("DELETE FROM change_log WHERE seq = (SELECT max(seq) FROM change_log)")
        public = access.intern_labels(conn, world.tenant_id, Labels(("public",)))
        conn.execute("UPDATE documents SET label_set_id = %s", (public,))
        conn.execute("UPDATE vectors_1 SET label_set_id = %s", (public,))
    with pytest.raises(ReplicaUnavailable, match="another database"):
        found(index, world, "lamp")
    follower.step()
    agree(index, world)


def test_another_release_s_replica_is_made_anew(
    world: World, follower: Follower, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    follower.step()
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.replica.FORMAT", 3)
        with pytest.raises(ReplicaUnavailable, match="another release"):
            read(place(world, root))
        Follower(world.store, root).step()
        agree(ReplicaIndex(world.store, root, watch_s=0), world)


# --- killed, and two of them --------------------------------------------------------------------------------------


def test_killed_at_any_file_it_leaves_a_whole_replica(
    world: World, follower: Follower, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before each of the renames that a step makes, and half way through each file."""
    fill(world)
    follower.step()
    for death in range(1, 6):
        world.add("d0", f"lamp heron {death}")
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", dying(death))
            Follower(world.store, root).step()
        agree(ReplicaIndex(world.store, root, watch_s=0), world)
        Follower(world.store, root).step()
        agree(ReplicaIndex(world.store, root, watch_s=0), world)
        assert not list(root.rglob("*/*.unfinished"))


def dying(death: int) -> Callable[[Path, Path], Path]:
    """`Path.replace`, whose n-th call finds a file that is half written and ends the process."""
    calls, real = iter(range(1, 100)), Path.replace

    def replace_or_die(self: Path, target: Path) -> Path:
        if next(calls) == death:
            cut(self)
            raise KeyboardInterrupt
        return real(self, target)

    return replace_or_die


def test_a_second_follower_waits_until_the_first_has_ended(root: Path) -> None:
    going = threading.Event()
    with only_one(root, lambda: True) as first, only_one(root, going.is_set) as second:
        assert (first, second) == (True, False)
    with only_one(root, lambda: False) as third:
        assert third


READER = """
import json, sys
from pathlib import Path
from uuid import UUID
from core.records import Principal
from retrieval.replica_index import ReplicaIndex
from store import access
from store.chunks import Scan
from store.pool import View, export_snapshot, open_store, reading_tenant

app, root, tenant, profile = sys.argv[1:]
store = open_store(app, app)
index = ReplicaIndex(store, Path(root))
for line in sys.stdin:
    with reading_tenant(store, UUID(tenant)) as conn:
        scope = access.enter_scope(conn, Principal(UUID(tenant), "user:ana"))
        found = index.search(line, View(scope, export_snapshot(conn)), Scan(scope, int(profile)), 50, 10)
    print(json.dumps({c.chunk_id: c.score for c in found}), flush=True)
"""


def test_processes_of_one_host_read_the_same_while_it_is_replaced(
    world: World, follower: Follower, root: Path, app_url: str
) -> None:
    fill(world)
    follower.step()
    argv = [sys.executable, "-c", READER, app_url, str(root), str(world.tenant_id), str(world.profile.id)]
    readers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for number in range(6):
            world.add(f"d{number}", f"lamp heron {number}")
            if number % 2:
                follower.step()
            due = {c.chunk_id: c.score for c in found(RankBm25Index(world.store), world, "lamp heron")}
            for reader in readers:
                assert reader.stdin and reader.stdout
                reader.stdin.write("lamp heron\n")
                reader.stdin.flush()
                told = {int(i): score for i, score in json.loads(reader.stdout.readline()).items()}
                assert told == pytest.approx(due)
    finally:
        for reader in readers:
            reader.communicate()


def test_the_command_follows_and_ends_on_a_signal(world: World, root: Path, maintenance_url: str) -> None:
    fill(world)
    environment = os.environ | {"CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(root.parent)}
    argv = [sys.executable, "-m", "cli.main", "follow"]
    with subprocess.Popen(argv, env=environment) as process:
        give_up = time.monotonic() + 30
        while status_at(root) is None:
            assert time.monotonic() < give_up and process.poll() is None
            time.sleep(0.1)
        index = ReplicaIndex(world.store, root)
        agree(index, world)
        world.add("more", "lamp heron")
        agree(index, world)
        while index_lag(index, world) != 0:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        index.close()
        process.terminate()
        assert process.wait(15) == 0


def index_lag(index: ReplicaIndex, world: World) -> float:
    with reading_tenant(world.store, world.tenant_id) as conn:
        return index.lag_s(conn, world.tenant_id)


# --- erased -------------------------------------------------------------------------------------------------------


def test_what_was_erased_leaves_the_files_and_memory(
    world: World, follower: Follower, index: ReplicaIndex, root: Path
) -> None:
    fill(world)
    secret = world.add("secret", "zanzibar lamp and the first text")
    follower.step()
    world.add("secret", "zanzibar and the second text")  # what it said before stands in a segment as well
    follower.step()
    found(index, world, "zanzibar")
    with writing(world.store) as conn:
        key = audit.hash_key(conn, world.tenant_id)
        erase.take_away(conn, world.tenant_id, secret.document_id, "service:test")
    assert traces(root, world.tenant_id, secret.document_id, key, "zanzibar")
    follower.step()  # sees it
    assert found(index, world, "zanzibar") == []
    follower.step()  # and has rewritten the segments
    assert traces(root, world.tenant_id, secret.document_id, key, "zanzibar") == []
    hash_of = hasher(key)
    for part in read(place(world, root)).replica.parts:
        assert hash_of("zanzibar") not in part.segment.terms
        assert (part.segment.find(pairs([secret.document_id])) == -1).all()
    index.refresh()
    held = index._newest((world.tenant_id, world.profile.id))
    assert all(hash_of("zanzibar") not in part.segment.terms for part in held[0].parts)
    agree(index, world)


def test_an_older_replica_is_let_go_of(
    world: World, follower: Follower, index: ReplicaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    follower.step()
    found(index, world, "lamp")
    world.add("more", "lamp")
    follower.step()
    index.refresh()
    assert len(index._newest((world.tenant_id, world.profile.id))) == 2
    monkeypatch.setattr("retrieval.replica_index.SETTLED_S", 0.0)
    index.refresh()
    assert len(index._newest((world.tenant_id, world.profile.id))) == 1


def test_a_replica_that_nobody_asks_leaves_the_memory(
    world: World, follower: Follower, index: ReplicaIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    follower.step()
    agree(index, world)
    index.refresh()
    assert index._held
    monkeypatch.setattr("retrieval.replica_index.IDLE_S", -1.0)
    index.refresh()
    assert not index._held
    agree(index, world)


def test_a_tenant_that_left_leaves_no_folder(world: World, neighbour: World, follower: Follower, root: Path) -> None:
    fill(world)
    follower.step()
    assert place(neighbour, root).is_dir()
    with writing(world.store) as conn:
        conn.execute("DELETE FROM tenants WHERE id = %s", (neighbour.tenant_id,))
    follower.step()
    assert not (root / str(neighbour.tenant_id)).exists() and place(world, root).is_dir()


def test_a_tenants_key_is_its_own(world: World, neighbour: World, follower: Follower, root: Path) -> None:
    for one in (world, neighbour):
        one.add("same", "zanzibar")
    follower.step()
    terms = [set(read(place(one, root)).replica.parts[0].segment.terms.tolist()) for one in (world, neighbour)]
    assert terms[0].isdisjoint(terms[1])


def test_readiness_tells_a_follower_that_stopped(
    world: World, follower: Follower, index: ReplicaIndex, root: Path
) -> None:
    assert index.state() != "ok"
    follower.step()
    assert index.state() == "ok"
    (root / following_module.STATUS).write_text(json.dumps({"at": time.time() - 60}))
    assert index.state() == "the follower has stopped"


def test_the_command_waits_for_the_follower_and_proves_it(
    world: World, root: Path, app_url: str, maintenance_url: str, tmp_path: Path
) -> None:
    fill(world)
    secrets = [world.add(f"secret{n}", f"zanzibar{n} lamp") for n in range(2)]
    environment = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url,
                   "CITADEL_STATE": str(tmp_path), "CITADEL_BLOB_URL": (tmp_path / "blobs").as_uri()}  # fmt: skip

    def proof(number: int, *flags: str) -> tuple[int, list[str]]:
        argv = ["erase", str(secrets[number].document_id), "--canary", f"Zanzibar{number}", "--json", *flags]
        done = CliRunner().invoke(citadel, argv, env=environment)
        return done.exit_code, json.loads(done.stdout)["proof"]["files"]

    Follower(world.store, root).step()
    (root / following_module.STATUS).unlink()  # it has stopped: nothing to wait for
    assert proof(0, "--verify") == (1, [str(place(world, root))])
    running = FollowedAllTheTime(world.store, root)
    assert proof(0, "--verify-only") == (0, []) and proof(1, "--verify") == (0, [])
    running.close()
