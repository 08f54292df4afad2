"""What every LexicalIndex must do. An engine joins by a line in ENGINES.

The fast engine joins twice: with a replica that follows before each search, and with one that was made when nothing was
there, so that everything comes from what changed since.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from psycopg import sql

from core.records import Candidate
from retrieval.lexical import LexicalIndex
from store import access, erase
from store.chunks import Scan
from store.pool import Store, View, export_snapshot, reading_tenant, writing
from tests.conftest import World
from tests.engines import ENGINES


@pytest.fixture(params=sorted(ENGINES))
def make(request: pytest.FixtureRequest, neighbour: World, tmp_path: Path) -> Callable[[Store], LexicalIndex]:
    """Opens one of the engines, over two tenants."""
    return lambda store: ENGINES[request.param](store, tmp_path / "lexical")


@pytest.fixture
def engine(make: Callable[[Store], LexicalIndex], world: World) -> LexicalIndex:
    """The engine, over the world's store."""
    return make(world.store)


@contextmanager
def sight(world: World, subject: str, where: sql.Composable | None = None) -> Iterator[tuple[View, Scan]]:
    """The subject's view and scan, in a snapshot that is open."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        scope = access.enter_scope(conn, world.who(subject))
        yield View(scope, export_snapshot(conn)), Scan(scope, world.profile.id, where)


def found(engine: LexicalIndex, world: World, query: str, subject: str = "user:ana", k: int = 50) -> list[Candidate]:
    """What the engine proposes to the subject now."""
    with sight(world, subject) as (view, scan):
        return engine.search(query, view, scan, k, timeout_s=10)


def names(world: World, candidates: Sequence[Candidate]) -> list[str]:
    """External ids, in the candidates' order."""
    with writing(world.store) as conn:
        query = "SELECT c.id, d.external_id FROM chunks c JOIN documents d ON d.id = c.document_id WHERE c.id = ANY(%s)"
        by_id = dict(conn.execute(query, ([c.chunk_id for c in candidates],)).fetchall())
    return [by_id[candidate.chunk_id] for candidate in candidates]


def test_only_chunks_with_a_term_of_the_question(engine: LexicalIndex, world: World) -> None:
    world.add("a", "red lamp")
    world.add("b", "blue lamp")
    world.add("c", "green chair")
    assert sorted(names(world, found(engine, world, "lamp"))) == ["a", "b"]
    assert names(world, found(engine, world, "red")) == ["a"]
    assert sorted(names(world, found(engine, world, "red chair"))) == ["a", "c"]
    for nothing in ("", "  ", "?!", "absent", "lam", "lampoon"):
        assert found(engine, world, nothing) == []


def test_forms_of_a_word_meet(engine: LexicalIndex, world: World) -> None:
    world.add("en", "The employees are reimbursed for travelling to the customer.")
    world.add("de", "Die Reisekosten werden den Mitarbeitern und Gästen erstattet.")
    assert names(world, found(engine, world, "travels")) == ["en"]
    assert names(world, found(engine, world, "What is the reimbursement of an employee?")) == ["en"]
    assert names(world, found(engine, world, "Wie werden der Mitarbeiter und die Gäste erstattet?"))[0] == "de"
    assert names(world, found(engine, world, "Erstattung")) == ["de"]  # it tells no language


def test_a_text_that_tells_no_language_is_in_its_documents(engine: LexicalIndex, world: World) -> None:
    for name, language in (("de", "de"), ("none", None), ("other", "da")):
        world.add(name, "Erstattungen 2024: 17")
        with writing(world.store) as conn:
            conn.execute("UPDATE versions SET language = %s WHERE document_id = (SELECT id FROM documents "
                         "WHERE external_id = %s)", (language, name))  # fmt: skip
    assert names(world, found(engine, world, "Wie werden die Erstattung und der Betrag belegt?")) == ["de"]
    assert sorted(names(world, found(engine, world, "Erstattungen"))) == ["de", "none", "other"]


def test_a_title_weighs_more_than_the_text(engine: LexicalIndex, world: World) -> None:
    world.add("text", "lamp and chair and table", title="Some other name")
    world.add("title", "some other name and table", title="Lamp and chair")
    assert names(world, found(engine, world, "lamp chair")) == ["title", "text"]


def test_best_first_and_no_more_than_asked(engine: LexicalIndex, world: World) -> None:
    world.add("once", "lamp and other words here")
    world.add("twice", "lamp lamp and other words")
    world.add("thrice", "lamp lamp lamp and words")
    for n in range(5):
        world.add(f"other{n}", f"nothing of it {n}")
    everything = found(engine, world, "lamp")
    assert names(world, everything) == ["thrice", "twice", "once"]
    scores = [c.score for c in everything]
    assert scores == sorted(scores, reverse=True) and all(score > 0 for score in scores)
    for k in (1, 2, 3, 4):
        assert found(engine, world, "lamp", k=k) == everything[:k]


def test_a_rare_term_weighs_more_and_a_shorter_text_too(engine: LexicalIndex, world: World) -> None:
    world.add("rare", "zebra common filler text")
    world.add("common", "common horse filler text")
    for n in range(6):
        world.add(f"c{n}", f"common filler text {n}")
    assert sorted(names(world, found(engine, world, "zebra horse"))) == ["common", "rare"]
    assert names(world, found(engine, world, "zebra common"))[0] == "rare"
    world.add("long", "oak " + "padding " * 50)
    world.add("short", "oak leaf")
    assert names(world, found(engine, world, "oak")) == ["short", "long"]


def test_a_term_in_most_chunks_still_counts(engine: LexicalIndex, world: World) -> None:
    for n in range(4):
        world.add(f"d{n}", f"lamp number{n}")
    assert len(found(engine, world, "lamp")) == 4  # Okapi's own idf would be negative here


def test_case_forms_and_parts_of_identifiers_meet(engine: LexicalIndex, world: World) -> None:
    world.add("a", "The device shows ERR-4012 after a Größenänderung.")
    for query in ("err-4012", "ERR 4012", "4012", "GRÖSSENÄNDERUNG größenänderung", "gro\u0308ßena\u0308nderung"):
        assert names(world, found(engine, world, query)) == ["a"], query


def test_the_title_in_front_of_a_chunk_is_searched(engine: LexicalIndex, world: World) -> None:
    world.add("a", "nothing but text", title="Marmalade policy")
    assert names(world, found(engine, world, "marmalade")) == ["a"]


def test_only_what_the_caller_sees(engine: LexicalIndex, world: World) -> None:
    world.add("public", "lamp")
    world.add("ben", "lamp lamp lamp", ("user:ben",))
    assert names(world, found(engine, world, "lamp", "user:ana")) == ["public"]
    assert sorted(names(world, found(engine, world, "lamp", "user:ben"))) == ["ben", "public"]
    assert found(engine, world, "lamp", "user:ana") == found(engine, world, "lamp", "user:cem")


def test_hidden_chunks_move_no_score(engine: LexicalIndex, world: World) -> None:
    chance = random.Random(1)
    for n in range(8):
        world.add(f"d{n}", " ".join(chance.choices("abcdefgh", k=12)))
    before = {query: found(engine, world, query) for query in ("a", "a b", "c d e", "rare")}
    for n in range(8):
        world.add(f"h{n}", "a rare " + "b c " * chance.randint(1, 60), ("user:ben",))
    assert {query: found(engine, world, query) for query in before} == before
    world.add("seen", "a rare word")
    assert found(engine, world, "a") != before["a"]  # while what is seen does


def test_another_tenants_chunks_are_never_proposed(engine: LexicalIndex, world: World, neighbour: World) -> None:
    neighbour.add("theirs", "lamp")
    assert found(engine, world, "lamp") == []
    world.add("ours", "lamp")
    assert names(world, found(engine, world, "lamp")) == ["ours"]
    assert names(world, found(engine, neighbour, "lamp")) == ["theirs"]


def test_it_follows_every_change_at_once(engine: LexicalIndex, world: World) -> None:
    first = world.add("a", "old words", ("group:x",))
    world.groups({"group:x": ["user:ana"]})
    assert names(world, found(engine, world, "old")) == ["a"]
    world.add("a", "new words", ("group:x",))
    assert found(engine, world, "old") == [] and names(world, found(engine, world, "new")) == ["a"]
    world.submit("a", "new words", ("user:ben",))  # relabelled
    assert found(engine, world, "new") == [] and names(world, found(engine, world, "new", "user:ben")) == ["a"]
    with writing(world.store) as conn:
        erase.take_away(conn, world.tenant_id, first.document_id, "service:test")
    assert found(engine, world, "new", "user:ben") == []


def test_it_reads_the_views_snapshot(engine: LexicalIndex, world: World) -> None:
    world.add("a", "lamp")
    with sight(world, "user:ana") as (view, scan):
        world.add("b", "lamp")
        assert names(world, engine.search("lamp", view, scan, 50, 10)) == ["a"]
    assert sorted(names(world, found(engine, world, "lamp"))) == ["a", "b"]


def test_a_filter_narrows_what_is_proposed(engine: LexicalIndex, world: World) -> None:
    for name in ("a", "b", "c"):
        world.add(name, "lamp")
    with sight(world, "user:ana", sql.SQL("d.external_id <> 'b'")) as (view, scan):
        assert names(world, engine.search("lamp", view, scan, 50, 10)) == ["a", "c"]
    with sight(world, "user:ana", sql.SQL("false")) as (view, scan):
        assert engine.search("lamp", view, scan, 50, 10) == []


def test_ties_stand_by_chunk_id(engine: LexicalIndex, world: World) -> None:
    for n in range(6):
        world.add(f"d{n}", "the same lamp")
    ids = [candidate.chunk_id for candidate in found(engine, world, "lamp")]
    assert ids == sorted(ids) and len(set(ids)) == 6


def test_many_callers_at_once_get_each_their_own(
    make: Callable[[Store], LexicalIndex], engine: LexicalIndex, world: World
) -> None:
    people = [f"user:p{n}" for n in range(5)]
    for n, person in enumerate(people):
        world.add(person, "lamp " * (n + 1), (person,))
    alone = {person: found(engine, world, "lamp", person) for person in people}
    fresh = make(world.store)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: (people[n % 5], found(fresh, world, "lamp", people[n % 5])), range(60)))
    assert all(answer == alone[person] for person, answer in answers)
    assert all(np.isfinite(c.score) for answer in alone.values() for c in answer)
