"""Moving a tenant to another embedding profile: nobody notices, nothing is lost, and quality decides."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from psycopg import sql

from cli.service import models_at_hand
from core.errors import Conflict, NotFound, ProfileMoved
from core.records import Labels, Profile, SearchAnswer, SearchRequest
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.promote import MAX_DROP, evaluate
from ingest.erase import erase
from ingest.parsers.plain import parse_text
from ingest.reembed import Target, Why, catch_up, flip
from models.embedder import Embedder, open_embedder
from models.fake_embedder import FakeEmbedder
from models.shelf import Shelf
from retrieval.lexical import LexicalIndex, RankBm25Index
from retrieval.rerank import late_interaction
from retrieval.search import Searcher, search
from store import documents, kept_profiles, safety
from store.audit import Actor
from store.kept_profiles import Stored
from store.migrate import as_owner
from store.pool import reading_tenant, writing
from store.profiles import ensure_profile, live_profile
from tests.conftest import World
from tests.engines import FollowedAllTheTime
from tests.integration.rows import fetch, read_text

ANA, BEN = "user:ana", "user:ben"
PROMOTED = Why("profile.promote", Actor("service:test"), {"verdicts": []})
ROLLED_BACK = Why("profile.rollback", Actor("service:test"))
WORDS = ("heron", "kestrel", "osprey", "plover", "curlew", "avocet", "dunlin", "godwit", "whimbrel", "turnstone")
LONG = " ".join(f"Sentence {number} tells of the {WORDS[number % 8]} at the shore." for number in range(40))


@pytest.fixture
def candidate(world: World, database_url: str) -> Target:
    """A profile of another model, other dimensions and smaller chunks, beside the live one."""
    embedder = FakeEmbedder(64)
    wanted = Profile(0, "small", embedder.name, embedder.dimensions, embedder.precision, 60, "structure")
    with as_owner(database_url) as conn:
        profile = ensure_profile(conn, wanted)
    with writing(world.store) as conn:
        kept_profiles.keep(conn, world.tenant_id, profile.id)
    return Target(world.tenant_id, profile, embedder)


@pytest.fixture(params=["rank-bm25", "fast"])
def moving(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Searcher]:
    """A searcher that opens a profile's model when it needs it, by each lexical engine."""
    index: LexicalIndex = RankBm25Index(world.store)
    if request.param == "fast":
        index = FollowedAllTheTime(world.store, tmp_path / "lexical")
    opened = Searcher(
        world.store, world.embedder, index, late_interaction(60), deadline_s=120,  # however busy the machine is
        shelf=Shelf(lambda model, precision: open_embedder(model, tmp_path)),
    )  # fmt: skip
    yield opened
    opened.threads.shutdown(cancel_futures=True)
    if isinstance(index, FollowedAllTheTime):
        index.close()


def target_of(world: World) -> Target:
    """The profile that the world began with."""
    return Target(world.tenant_id, world.profile, world.embedder)


def birds(world: World, count: int = 8) -> None:
    """A document a bird, each of several chunks."""
    for number in range(count):
        world.add(f"bird-{number}", f"Of the {WORDS[number % len(WORDS)]} number {number}.\n\n{LONG}")


def live_id(world: World) -> int:
    with writing(world.store) as conn:
        return live_profile(conn, world.tenant_id).id


def profiles_of(world: World, answer: SearchAnswer) -> set[int]:
    """The profiles whose chunks the answer is made of."""
    ids = [passage.scores.chunk_id for passage in answer.passages]
    return {row[0] for row in fetch(world, "SELECT profile_id FROM chunks WHERE id = ANY(%s)", ids)}


def behind(world: World, target: Target) -> int:
    with writing(world.store) as conn:
        return kept_profiles.count_behind(conn, world.tenant_id, target.profile.id)


def rows(world: World, target: Target) -> list[tuple[object, ...]]:
    """Document, version, span, and the labels of the vector, of everything under the profile."""
    statement = """
        SELECT d.external_id, c.version, c.start_offset, c.end_offset, v.label_set_id = d.label_set_id
        FROM chunks c JOIN documents d ON d.id = c.document_id JOIN {} v ON v.chunk_id = c.id ORDER BY 1, 2, 3
    """
    table = sql.Identifier(f"vectors_{target.profile.id}")
    with writing(world.store) as conn:
        return conn.execute(sql.SQL(statement).format(table)).fetchall()


# --- building -------------------------------------------------------------------------------------------------------


def test_a_build_gives_what_indexing_under_the_profile_would_have_given(world: World, candidate: Target) -> None:
    birds(world, 3)
    world.add("closed", LONG, (BEN,), title="A title goes into each prefix")
    assert catch_up(world.store, candidate) == 4 and behind(world, candidate) == 0
    for external_id, title in (("bird-1", None), ("closed", "A title goes into each prefix")):
        (text,) = fetch(world, "SELECT text FROM versions v JOIN documents d ON d.id = document_id "
                               "WHERE external_id = %s", external_id)[0]  # fmt: skip
        there = replace(world, profile=candidate.profile, embedder=candidate.embedder)
        wanted = there.chunks_of(parse_text(text.encode()), title)
        stored = fetch(
            world,
            "SELECT ordinal, start_offset, end_offset, embed_prefix, tokens, text FROM chunks c "
            "JOIN documents d ON d.id = document_id WHERE external_id = %s AND profile_id = %s ORDER BY ordinal",
            external_id, candidate.profile.id,
        )  # fmt: skip
        assert len(wanted) > 3  # it is cut finer than under the live profile
        assert stored == [
            (piece.ordinal, piece.start, piece.end, piece.embed_prefix, piece.tokens, text[piece.start : piece.end])
            for piece in wanted
        ]
    with reading_tenant(world.store, None) as conn:
        assert safety.violations(conn) == []


def test_a_build_that_was_killed_goes_on_where_it_was(
    world: World, candidate: Target, maintenance_url: str, tmp_path: Path
) -> None:
    for number in range(70):
        world.add(f"d{number}", f"Number {number} of the {WORDS[number % 8]}.")
    killed = tmp_path / "killed.py"
    killed.write_text(f"""
import os, signal, uuid
from ingest.reembed import Target, catch_up
from models.fake_embedder import FakeEmbedder
from store.pool import open_store, writing
from store.profiles import profile_named

class Fatal(FakeEmbedder):
    calls = 0

    def embed_documents_with_tokens(self, texts):
        Fatal.calls += 1
        if Fatal.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_documents_with_tokens(texts)

store = open_store("", {maintenance_url!r}, size=1)
with writing(store) as conn:
    profile = profile_named(conn, "small")
catch_up(store, Target(uuid.UUID({str(world.tenant_id)!r}), profile, Fatal(64)))
""")
    done = subprocess.run([sys.executable, str(killed)], cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == -signal.SIGKILL
    left = behind(world, candidate)
    assert left == 70 - 64  # two batches of 32 were kept
    assert catch_up(world.store, candidate) == left
    found = rows(world, candidate)
    assert len(found) == len({row[0] for row in found}) == 70 and all(row[4] for row in found)


def test_what_is_written_meanwhile_is_in_the_candidate_when_it_goes_live(world: World, candidate: Target) -> None:
    birds(world, 4)
    catch_up(world.store, candidate)
    with writing(world.store) as conn:
        ids = {name: i for i, name in conn.execute("SELECT id, external_id FROM documents")}
    world.add("bird-0", "Another text of the heron.")
    world.add("new", "The wryneck is new.")
    erase(world.store, world.blobs, world.tenant_id, ids["bird-1"], by="service:test")
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, ids["bird-2"], Labels((BEN,), (), "internal"))
    stale = world.submit("bird-3", "Not indexed yet.")
    assert behind(world, candidate) == 2
    flip(world.store, candidate, PROMOTED)
    found = rows(world, candidate)
    assert {(name, version) for name, version, *_ in found} == {("bird-0", 2), ("new", 1), ("bird-2", 1), ("bird-3", 1)}
    assert all(followed for *_, followed in found)
    assert live_id(world) == candidate.profile.id
    with pytest.raises(ProfileMoved):  # a worker that embedded for the profile before
        world.index(stale)
    there = replace(world, profile=candidate.profile, embedder=candidate.embedder)
    again = there.submit("bird-3", "Not indexed yet, and now it is.")
    assert there.index(again)
    assert behind(world, target_of(world)) == 1  # what rollback will bring in first
    flip(world.store, target_of(world), ROLLED_BACK)
    assert {(row[0], row[1]) for row in rows(world, target_of(world))} == {
        ("bird-0", 2), ("new", 1), ("bird-2", 1), ("bird-3", 3)
    }  # fmt: skip


def test_labels_and_erasure_reach_every_profile(world: World, candidate: Target) -> None:
    birds(world, 2)
    catch_up(world.store, candidate)
    world.groups({})
    (first, second) = [row[0] for row in fetch(world, "SELECT id FROM documents ORDER BY external_id")]
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, first, Labels((BEN,), (), "internal"))
    assert all(followed for *_, followed in rows(world, candidate))
    erase(world.store, world.blobs, world.tenant_id, second, by="service:test")
    assert {row[0] for row in rows(world, candidate)} == {"bird-0"}


def test_two_builders_do_everything_once(world: World, candidate: Target) -> None:
    birds(world)
    with writing(world.store) as conn:
        (stored,) = kept_profiles.behind(conn, world.tenant_id, candidate.profile.id, None, 1)
    catch_up(world.store, candidate)
    before = rows(world, candidate)
    late = candidate.embedder.embed_documents_with_tokens([stored.parsed.text])
    piece = replace(world.chunks_of(stored.parsed)[0], end=len(stored.parsed.text))
    with writing(world.store) as conn:
        assert not kept_profiles.add(conn, world.tenant_id, candidate.profile.id, stored, [piece], *late)
    assert rows(world, candidate) == before


def test_the_live_profile_is_no_candidate(world: World) -> None:
    with writing(world.store) as conn, pytest.raises(Conflict):
        kept_profiles.keep(conn, world.tenant_id, world.profile.id)


# --- readers --------------------------------------------------------------------------------------------------------


def test_searches_never_fail_or_mix_profiles(world: World, candidate: Target, moving: Searcher) -> None:
    birds(world)
    request = SearchRequest("the heron and the plover at the shore", top_k=6)
    answers: list[SearchAnswer] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                answers.append(search(moving, world.who(ANA), request))
            except BaseException as error:  # noqa: BLE001  told by the test
                failures.append(error)

    search(moving, world.who(ANA), request)
    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    lived = set[int]()

    def seen(more: int) -> None:
        """Until so many searches have begun and ended."""
        until = len(answers) + more
        while len(answers) < until and not failures:
            stop.wait(0.01)
        lived.add(live_id(world))

    try:
        seen(4)
        catch_up(world.store, candidate)
        seen(4)
        evaluate(moving, world.tenant_id, candidate.profile, [golden(world)], wait_s=20)
        flip(world.store, candidate, PROMOTED)
        seen(8)
        flip(world.store, target_of(world), ROLLED_BACK)
        seen(8)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [stage for answer in answers for stage in answer.activity if "failed" in stage.detail] == []
    used = [profiles_of(world, answer) for answer in answers]
    assert {frozenset(each) for each in used} == {frozenset({world.profile.id}), frozenset({candidate.profile.id})}
    assert lived == {world.profile.id, candidate.profile.id}


def test_a_process_opens_the_model_before_a_search_needs_it(world: World, candidate: Target, tmp_path: Path) -> None:
    opened = list[str]()

    def opener(model: str, precision: str) -> Embedder:
        opened.append(f"{model}/{precision}")
        return open_embedder(model, tmp_path)

    searcher = Searcher(world.store, world.embedder, RankBm25Index(world.store), shelf=Shelf(opener))
    with models_at_hand(searcher, every_s=0.01):
        until = time.monotonic() + 10
        while not opened and time.monotonic() < until:
            time.sleep(0.01)
    flip(world.store, candidate, PROMOTED)
    assert search(searcher, world.who(ANA), SearchRequest("heron")).degraded == ()
    assert opened == ["fake-64/f32"]
    searcher.threads.shutdown()


def test_a_flip_and_its_row_in_the_audit_are_one_transaction(world: World, candidate: Target) -> None:
    birds(world, 1)
    unsaid = replace(PROMOTED, detail={"verdicts": {object()}})  # a row that cannot be written
    with pytest.raises(TypeError):
        flip(world.store, candidate, unsaid)
    assert live_id(world) == world.profile.id
    for target, why in ((candidate, PROMOTED), (target_of(world), ROLLED_BACK)):
        flip(world.store, target, why)
        told = fetch(world, "SELECT xmin::text, action, resource FROM audit_log ORDER BY seq DESC LIMIT 1")
        pointer = fetch(world, "SELECT xmin::text FROM tenants WHERE live_profile = %s", target.profile.id)
        assert told == [(*pointer[0], why.action, f"profile:{target.profile.name}")]


def test_citations_made_before_the_flip_hold_after_it(world: World, candidate: Target, moving: Searcher) -> None:
    birds(world, 4)
    request = SearchRequest("kestrel number 1", top_k=3)
    before = search(moving, world.who(ANA), request)
    flip(world.store, candidate, PROMOTED)
    after = search(moving, world.who(ANA), request)
    assert profiles_of(world, after) == {candidate.profile.id}
    for passage in (*before.passages, *after.passages):
        citation = passage.citation
        text = read_text(world, ANA, citation.document_id, citation.version)
        assert text is not None and text[citation.start : citation.end] == passage.text


def test_a_profile_is_dropped_beside_readers(
    world: World, candidate: Target, searcher: Searcher, database_url: str
) -> None:
    birds(world)
    catch_up(world.store, candidate)
    request, stop = SearchRequest("the heron"), threading.Event()
    contexts: list[str] = []

    def poll() -> None:
        while not stop.is_set():
            contexts.append(search(searcher, world.who(ANA), request).context)

    thread = threading.Thread(target=poll)
    thread.start()
    with writing(world.store) as conn:
        assert kept_profiles.is_used(conn, candidate.profile.id)
    with pytest.raises(Conflict, match="use"):
        kept_profiles.drop_tables(database_url, candidate.profile.id)
    with writing(world.store) as conn:
        kept_profiles.release(conn, world.tenant_id, candidate.profile.id)
        while kept_profiles.drop_rows(conn, world.tenant_id, candidate.profile.id, 10):
            pass
        with pytest.raises(NotFound):  # whoever still builds it is told
            kept_profiles.add(conn, world.tenant_id, candidate.profile.id, stored_of(world), [], np.empty((0, 64)), [])
    kept_profiles.drop_tables(database_url, candidate.profile.id)
    seen = len(contexts)
    while len(contexts) < seen + 3:
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert len(set(contexts)) == 1 and contexts[0]
    assert fetch(world, "SELECT id FROM profiles") == [(world.profile.id,)]
    assert fetch(world, "SELECT FROM label_set_chunks WHERE profile_id = %s", candidate.profile.id) == []
    with reading_tenant(world.store, None) as conn:
        assert safety.violations(conn) == []
    world.add("bird-0", "Writes go on.")


def stored_of(world: World) -> Stored:
    """Any document, as a builder has read it."""
    (row,) = fetch(world, "SELECT id, created_at FROM documents ORDER BY external_id LIMIT 1")
    return Stored(row[0], row[1], 1, None, parse_text(b"one"))


# --- quality --------------------------------------------------------------------------------------------------------


def golden(world: World, count: int = 10) -> GoldenSet:
    """Each bird's own document is its answer, and Ana must not see Ben's."""
    queries = tuple(
        GoldenQuery(f"q{n}", f"{word} number {n}", ANA, (Judgement(f"bird-{n}"),), ("secret",))
        for n, word in enumerate(WORDS[:count])
    )
    return GoldenSet("birds", "0" * 64, queries)


class Blind(FakeEmbedder):
    """Every text has the same vector, and no codes: as a model that was not trained."""

    def _words(self, text: str):  # type: ignore[no-untyped-def]
        found = super()._words(text)
        found[:] = 0
        found[:, 0] = 1
        return found


def test_an_equal_candidate_passes(world: World, candidate: Target, moving: Searcher) -> None:
    birds(world, 10)
    world.add("secret", f"Of the heron number 0. {LONG}", (BEN,))
    catch_up(world.store, candidate)
    (verdict,) = evaluate(moving, world.tenant_id, candidate.profile, [golden(world)], wait_s=20)
    assert verdict.questions == 10 and verdict.live > 0.9
    (main, forbidden) = verdict.gated.checks
    assert main.bound is not None and main.bound >= -MAX_DROP and forbidden.passed
    assert verdict.degraded == 0 and verdict.reasons == ()


@pytest.fixture
def worse(world: World, database_url: str) -> Target:
    """A profile under which everything looks alike."""
    wanted = Profile(0, "blind", "fake-32", 32, "f32", 16, "structure")
    with as_owner(database_url) as conn:
        profile = ensure_profile(conn, wanted)
    with writing(world.store) as conn:
        kept_profiles.keep(conn, world.tenant_id, profile.id)
    return Target(world.tenant_id, profile, Blind(32))


def test_a_worse_candidate_is_blocked(world: World, worse: Target) -> None:
    for number, word in enumerate(WORDS):  # known by its nearness alone: no word of the question is rarer here
        world.add(f"bird-{number}", f"{word} number {number}")
    catch_up(world.store, worse)
    shelf = Shelf(lambda model, precision: worse.embedder)
    searcher = Searcher(world.store, world.embedder, NoWords(world.store), shelf=shelf)
    (verdict,) = evaluate(searcher, world.tenant_id, worse.profile, [golden(world)], wait_s=5)
    searcher.threads.shutdown(cancel_futures=True)
    assert verdict.live == 1.0 and verdict.candidate < 0.8
    assert len(verdict.reasons) == 1 and "must show" in verdict.reasons[0]


class NoWords(RankBm25Index):
    """A lexical leg that finds nothing, so that the dense one alone decides."""

    def search(self, *arguments: object, **more: object) -> list:  # type: ignore[override, type-arg]
        return []


def test_a_forbidden_document_blocks(world: World, candidate: Target, moving: Searcher) -> None:
    birds(world, 10)
    catch_up(world.store, candidate)
    first, *others = golden(world).queries
    opened = GoldenSet("birds", "0" * 64, (replace(first, forbidden=("bird-1",)), *others))
    (verdict,) = evaluate(moving, world.tenant_id, candidate.profile, [opened], wait_s=20)
    assert verdict.reasons == ("1 forbidden documents returned, at most 0 allowed",)
