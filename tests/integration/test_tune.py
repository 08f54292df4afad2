"""`citadel tune`: its rankings are the search's, it changes the tenant's fusion when that helps, and nothing else."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.records import Fusion, Place, SearchRequest
from eval.asking import Setting, asking
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.kept import Kept
from eval.rank import Ranker
from eval.tune import Way
from models.reranker import LateInteraction
from retrieval.lexical import Bm25, RankBm25Index
from retrieval.rerank import late_interaction
from retrieval.search import Searcher
from store.pool import reading_tenant, writing
from store.profiles import fusion_of, set_fusion
from tests.conftest import World
from tests.integration.conftest import ANA, BEN
from tests.integration.rows import fetch

PLACES = ("harbour", "forest", "desert", "glacier")


@pytest.fixture
def filled(world: World) -> World:
    """Staff may see all of it but what belongs to finance, which Ben is not in."""
    world.groups({"group:staff": [ANA, BEN], "group:finance": [ANA]})
    for n in range(24):
        label = "group:finance" if n % 6 == 5 else "group:staff"
        world.add(f"d{n}.md", f"Note {n} tells of the {PLACES[n % 4]} and of number {n}.", (label,))
    return world


def questions() -> GoldenSet:
    asked = [
        GoldenQuery(f"q{n}", f"what does note {n} tell of the {PLACES[n % 4]}?", ANA if n % 2 else BEN,
                    (Judgement(f"d{n}.md"),))
        for n in range(24)
    ]  # fmt: skip
    return GoldenSet("set", "", tuple(asked))


WAYS = [
    Way(Fusion("rrf", rrf_k=10), 0.5, 50, 200, 1.5, 0.75), Way(Fusion("convex", 0.2), 0.0, 50, 200, 1.5, 0.75),
    Way(Fusion("convex", 0.7), 0.8, 5, 200, 1.5, 0.75), Way(Fusion(), 0.5, 50, 6, 1.5, 0.75),
    Way(Fusion(), 0.3, 20, 200, 0.6, 0.2),
]  # fmt: skip


def searched(world: World, searcher: Searcher, way: Way, kept: Kept) -> dict[str, list[Place]]:
    """What a search gives that is set up like that."""
    late = {name: replace(box, box_s=30) for name, box in late_interaction(1.0, way.late_weight, way.late_pool).items()}
    lexical = RankBm25Index(world.store, bm25=Bm25(way.k1, way.b))
    set_up = replace(searcher, lexical=lexical, rerankers=late, pool=way.pool, deadline_s=60.0)
    request = SearchRequest("", top_k=40, fusion=way.fusion, as_ranked=True)
    setting = Setting(
        world.tenant_id, "hybrid", request, way.fusion, 0, {q.id: () for q in questions().queries}, way.pool
    )
    answers = [asking(set_up, kept, setting)(query) for query in questions().queries]
    return {a.query.id: [Place(p.external_id, p.start, p.end) for p in a.passages] for a in answers}


def test_its_rankings_are_the_searchs(filled: World, searcher: Searcher) -> None:
    dense, ids = Kept(), frozenset(query.id for query in questions().queries)
    legs: dict[tuple[float, float], Kept] = {(1.5, 0.75): dense}
    answers = [searched(filled, searcher, way, legs.setdefault((way.k1, way.b), Kept())) for way in WAYS]
    asked: list[int] = []

    def lexical(way: Way, queries: Sequence[GoldenQuery]) -> Kept:
        asked.append(len(queries))
        return legs[way.k1, way.b]

    ranker = Ranker(filled.store, filled.tenant_id, filled.embedder, LateInteraction(), questions(), (dense, lexical),
                    None)  # fmt: skip
    for way, expected in zip(WAYS, answers, strict=True):
        found = ranker(way, ids)
        for i in sorted(ids):
            assert [p.external_id for p in found[i]] == [p.external_id for p in expected[i]], (way, i)
    assert asked == [24] * len(WAYS) and len({len(of) for of in answers[3].values()}) > 0
    assert answers[0] != answers[1] and any(len(of) < 24 for of in answers[0].values())  # Ben sees no finance
    some = ranker(WAYS[0], frozenset({"q1", "q2"}))
    assert some == {i: answers[0][i] for i in ("q1", "q2")}


def test_what_was_hidden_since_is_not_ranked(filled: World, searcher: Searcher) -> None:
    kept = Kept()
    before = searched(filled, searcher, WAYS[0], kept)
    assert any(place.external_id == "d5.md" for place in before["q1"])
    filled.groups({"group:staff": [ANA, BEN]})
    ranker = Ranker(filled.store, filled.tenant_id, filled.embedder, LateInteraction(), questions(),
                    (kept, lambda way, queries: kept), None)  # fmt: skip
    found = ranker(WAYS[0], frozenset({"q1"}))["q1"]
    assert found and not {place.external_id for place in found} & {"d5.md", "d11.md", "d17.md", "d23.md"}


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel …` on the test's database, which stands for a running stack."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state"),
           "CITADEL_LEXICAL": "rank-bm25", "CITADEL_LATE_WEIGHT": "0"}  # fmt: skip
    return lambda *arguments: CliRunner().invoke(citadel, [str(a) for a in arguments], env=env, catch_exceptions=False)


def write_set(path: Path, ask: Callable[[int], str]) -> Path:
    lines = [{"id": f"q{n}", "query": ask(n), "as": ANA, "relevant": [{"document": f"d{n}.md"}]} for n in range(24)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def fusion(world: World) -> Fusion:
    with reading_tenant(world.store, world.tenant_id) as conn:
        return fusion_of(conn, world.tenant_id)


def test_a_fusion_that_is_wrong_is_found_and_changed(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    """The fake model counts marks like words, so these questions are nearest to what shouts; the words know better."""
    for n in range(12):
        filled.add(f"shout{n}.md", f"Shout {'!' * 30} {PLACES[n % 4]}", ("group:staff",))
    with writing(filled.store) as conn:
        set_fusion(conn, filled.tenant_id, Fusion("convex", 1.0))
    file, page = write_set(tmp_path / "g.jsonl", lambda n: f"note {n} {'!' * 30}"), tmp_path / "tune.html"
    seen = run("tune", file, "--over", "fusion", "--json", "--no-progress", "--html", page)
    found = json.loads(seen.stdout)
    assert (found["train"], found["held"], found["groups"]) == (12, 12, 24) and found["applied"] is False
    (finalist,) = found["finalists"]
    assert finalist["passed"] and finalist["held"]["after"] == 1.0 and finalist["held"]["before"] < 0.9
    assert finalist["way"]["fusion"]["dense_weight"] < 1.0 and found["keep"] is False
    assert fusion(filled) == Fusion("convex", 1.0) and "<svg" in page.read_text()
    text = run("tune", file, "--over", "fusion", "--apply").stdout
    assert "Change it" in text and "The tenant's fusion is" in text
    assert fusion(filled) == Fusion(**finalist["way"]["fusion"])
    ((detail,),) = fetch(filled, "SELECT detail FROM audit_log WHERE action = 'fusion.change'")
    assert detail == finalist["way"]["fusion"]
    again = run("tune", file, "--over", "fusion", "--apply").stdout
    assert "Keep what you have" in again and "Nothing was applied." in again


def test_where_no_setting_matters_nothing_is_applied(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    """Nobody has a word of these questions in a document, and what is near is by chance, under every setting."""
    file = write_set(tmp_path / "g.jsonl", lambda n: f"zzz{n * 7919}")
    before = fusion(filled)
    text = run("tune", file, "--apply", "--no-progress").stdout
    assert "Keep what you have" in text and "Nothing was applied." in text and fusion(filled) == before


def test_every_k1_and_b_is_asked_for_once_and_kept(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = write_set(tmp_path / "g.jsonl", lambda n: f"note number {n}")
    first = json.loads(run("tune", file, "--over", "bm25", "--measure", "RR@5", "--json", "--progress").stdout)
    legs = list((tmp_path / "state" / "legs").iterdir())
    asked = {(tried["way"]["k1"], tried["way"]["b"]) for tried in first["tried"]}
    assert len(legs) == len(asked) and first["measure"] == "RR@5"
    rows = "SELECT count(*) FROM audit_log WHERE action = 'search'"
    before = fetch(filled, rows)
    again = json.loads(run("tune", file, "--over", "bm25", "--measure", "RR@5", "--json").stdout)
    assert again == first and fetch(filled, rows) == before  # nothing was searched for


def test_what_it_does_not_do_is_said(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = write_set(tmp_path / "g.jsonl", lambda n: f"number {n}")
    for told, options in (
        ("one measure", ("--measure", "P@5,R@5")), ("some of fusion,rerank", ("--over", "fusion,magic")),
        ("only a collection", ("--chunk-chars", "400")), ("sizes from 16", ("--chunk-chars", "4")),
        ("unknown measure", ("--measure", "accuracy")),
    ):  # fmt: skip
        done = run("tune", file, *options)
        assert done.exit_code != 0 and told in done.output, options
