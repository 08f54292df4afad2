"""Exact and near copies: linked within a label set, parted with it, told to whoever sees them, gone with them."""

import json
import random
import threading
from pathlib import Path
from uuid import UUID

import httpx
from click.testing import CliRunner

from cli.main import citadel
from core.records import Labels
from ingest.erase import erase
from ingest.upkeep import Upkeep, run
from store import access, copies, documents
from store.copies import resemblance
from store.pool import reading_tenant, writing
from store.traces import traces
from tests.conftest import Api, World
from tests.integration.rows import fetch

WORDS = [f"word{n}" for n in range(3000)]
ANA, BEN = "user:ana@acme.example", "user:ben@acme.example"


def prose(seed: int, words: int = 400) -> str:
    return "policy " + " ".join(random.Random(seed).choices(WORDS, k=words))


def near(text: str, at: tuple[int, ...] = (50,)) -> str:
    """The text with other words at these places: each is in 5 of some 400 shingles."""
    words = text.split()
    for place in at:
        words[place] = f"other{place}"
    return " ".join(words)


def families(world: World) -> set[frozenset[str]]:
    """Names of the documents of each family of two or more."""
    found: dict[UUID, set[str]] = {}
    for family, name in fetch(
        world, "SELECT f.family, d.external_id FROM fingerprints f JOIN documents d ON d.id = f.document_id"
    ):
        found.setdefault(family, set()).add(name)
    return {frozenset(names) for names in found.values() if len(names) > 1}


def relabel(world: World, document_id: UUID, *allow: str) -> None:
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, document_id, Labels(allow))


def link_all(world: World) -> int:
    (report,) = run(Upkeep(world.store, world.blobs, lambda profile: world.embedder), ["copies"])
    return report.counts["documents"]


def test_copies_are_linked_within_a_label_set_alone(world: World, neighbour: World) -> None:
    text = prose(1)
    world.add("a", text)
    world.add("b", text)
    world.add("c", near(text))
    world.add("unlike", near(text, tuple(range(20, 400, 20))))
    world.add("stranger", prose(2))
    world.add("finance", text, ("group:finance",))
    neighbour.add("elsewhere", text)
    world.add("short", "Closed on Monday."), world.add("short too", "Closed on Monday.")
    world.add("short other", "Closed on Sunday.")
    assert families(world) == {frozenset("abc"), frozenset(("short", "short too"))}


def test_what_joins_resembles_the_first_and_not_only_the_last(world: World) -> None:
    """Each is 0.95 like the one before it, and soon not like the first."""
    places = tuple(range(30, 390, 30))
    steps = [near(prose(3), places[:n]) for n in range(0, len(places), 2)]
    for number, text in enumerate(steps):
        world.add(f"step{number}", text)
    signatures = dict(fetch(world, "SELECT d.external_id, f.signature FROM fingerprints f "
                            "JOIN documents d ON d.id = f.document_id"))  # fmt: skip
    found = families(world)
    assert found and len(max(found, key=len)) < len(steps)
    for family in found:
        first = min(family)
        assert all(resemblance(signatures[first], signatures[name]) >= copies.ALIKE for name in family)


def test_other_labels_part_copies_at_once_and_link_them_anew(world: World) -> None:
    text = prose(4)
    a, _, c = world.add("a", text), world.add("b", text), world.add("c", text, ("group:finance",))
    assert families(world) == {frozenset("ab")}
    relabel(world, a.document_id, "group:finance")
    assert families(world) == set()  # in the transaction that moved it
    assert link_all(world) == 1
    assert families(world) == {frozenset("ac")}
    relabel(world, c.document_id, "public")
    link_all(world)
    assert families(world) == {frozenset("bc")}


def test_another_text_parts_copies_and_so_does_erasure(world: World) -> None:
    text = prose(5)
    world.add("a", text), world.add("b", text)
    c = world.add("c", text)
    world.add("b", prose(6))
    assert families(world) == {frozenset("ac")}
    erase(world.store, world.blobs, world.tenant_id, c.document_id, by="service:test")
    assert families(world) == set()
    with writing(world.store) as conn:
        assert traces(conn, c.document_id, None) == {}
    assert fetch(world, "SELECT count(*) FROM fingerprint_bands WHERE document_id = %s", c.document_id) == [(0,)]


def test_two_at_once_do_not_wait_and_upkeep_links_them(world: World) -> None:
    text = prose(7)
    world.add("a", text)
    (label_set,) = fetch(world, "SELECT label_set_id FROM fingerprints")[0]
    with writing(world.store) as conn:
        conn.execute(copies.TAKE_TURN, (label_set,))  # another, in the middle of it
        thread = threading.Thread(target=world.add, args=("b", text))
        thread.start()
        thread.join(20)
        assert not thread.is_alive() and families(world) == set()
    assert link_all(world) == 1 and families(world) == {frozenset("ab")}
    with writing(world.store) as conn:  # as after a migration
        conn.execute("DELETE FROM fingerprints")
    assert link_all(world) >= 2 and families(world) == {frozenset("ab")}
    assert link_all(world) == 0


def ask(api: Api, headers: dict[str, str]) -> dict[str, int]:
    """Cited documents and how many copies each citation names."""
    answer: httpx.Response = api.http.post("/v1/search", json={"query": "policy", "top_k": 20}, headers=headers)
    assert answer.status_code == 200
    return {each["citation"]["external_id"]: each["citation"]["copies"] for each in answer.json()["passages"]}


def test_an_answer_has_one_of_them_and_says_how_many_more_there_are(world: World, api: Api) -> None:
    world.groups({"group:finance": [ANA]})
    text = prose(8, 100)
    for name in ("a", "b", "c"):
        world.add(name, text)
    world.add("hidden", text, ("group:finance",))
    world.add("other", prose(9, 100))
    key = api.key("agent", "search", "act_for")
    for subject, kept in ((BEN, 2), (ANA, 3)):  # of one label set one is left, and the counts stay apart
        found = ask(api, {**key, "X-Citadel-Act-For": subject})
        counted = {name: count for name, count in found.items() if name != "other"}
        assert found["other"] == 0 and len(found) <= kept
        assert set(counted.values()) <= {0, 2} and (("hidden" in found) <= (subject == ANA))
    relabel(world, UUID(str(fetch(world, "SELECT id FROM documents WHERE external_id = 'b'")[0][0])), BEN)
    found = ask(api, {**key, "X-Citadel-Act-For": ANA})
    assert max(found[name] for name in found if name in ("a", "c")) == 1


def test_the_list(world: World, app_url: str, maintenance_url: str, tmp_path: Path) -> None:
    world.groups({"group:finance": [ANA]})
    text = prose(10)
    for name in ("a", "b"):
        world.add(name, text), world.add(f"f{name}", text, ("group:finance",))
    env = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url,
           "CITADEL_STATE": str(tmp_path)}  # fmt: skip

    def names(*words: str) -> set[tuple[str, ...]]:
        done = CliRunner().invoke(citadel, ["documents", "duplicates", *words, "--json"], env=env)
        assert done.exit_code == 0, done.output
        return {tuple(family["names"]) for family in json.loads(done.stdout)}

    assert names() == {("api/a", "api/b"), ("api/fa", "api/fb")}
    assert names("--as", BEN) == {("api/a", "api/b")}
    assert names("--as", ANA) == names()


def test_a_reader_reads_no_family_that_is_hidden(world: World) -> None:
    """Row-level security alone: the app's role, with the documents' ids in hand."""
    world.groups({"group:finance": [ANA]})
    for name in ("a", "b"):
        world.add(name, prose(11), ("group:finance",))
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who(BEN))
        assert conn.execute("SELECT count(*) FROM fingerprints").fetchone() == (0,)
        ids = [row[0] for row in fetch(world, "SELECT id FROM documents")]
        assert copies.told(conn, ids) == {}
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who(ANA))
        assert {told.count for told in copies.told(conn, ids).values()} == {1}
