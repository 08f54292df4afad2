"""What a search tells when asked to explain itself: places and fates that the answer bears out, of nothing hidden."""

from typing import Any

import pytest

from api.answers import search_out
from cli.search import as_text
from core.records import SearchAnswer, SearchRequest
from retrieval.search import Searcher, search
from tests.conftest import Api, World
from tests.integration.rows import fetch

ANA, BEN = "user:ana", "user:ben"
LAMP = "the red lamp stands on the old desk of the harbour office by the window, and its keeper is "


@pytest.fixture
def library(world: World) -> World:
    """Fifteen public documents, two of which say the same, one of neighbouring chunks, and five of Ben's."""
    for number in range(12):
        world.add(f"d{number}", f"{LAMP}number {number} of {number * 7} red red lamps" + " red lamp" * (12 - number))
    for name in ("one", "two"):
        world.add(name, f"{LAMP}Mara, who has it from Otto, and a red lamp of her own too")
    world.add("long", "\n\n".join(f"Lamp {n}. " + "red harbour light " * 60 for n in range(6)), title="Lamps")
    for number in range(5):
        world.add(f"b{number}", f"red lamp red lamp red lamp {number}", (BEN,))
    return world


def ask(searcher: Searcher, world: World, who: str = ANA, **more: Any) -> SearchAnswer:
    return search(searcher, world.who(who), SearchRequest("red lamp keeper Mara", **{"explain": True, **more}))


def test_places_are_those_of_the_legs(library: World, searcher: Searcher) -> None:
    told = ask(searcher, library, top_k=50).explanation
    assert told is not None
    for leg in ("dense", "lexical"):
        alone = ask(searcher, library, top_k=50, mode=leg, explain=False, as_ranked=True).passages
        order = [(p.citation.external_id, p.citation.start) for p in alone]
        placed = {(each.external_id, each.start): getattr(each, leg) for each in told}
        assert [placed[spot].rank for spot in order] == list(range(1, len(order) + 1))
        assert [placed[spot].score for spot in order] == [getattr(p.scores, leg) for p in alone]
    fused = sorted((each.fused for each in told), key=lambda at: at.rank)
    assert [at.rank for at in fused] == list(range(1, len(told) + 1))
    assert [at.score for at in fused] == sorted((at.score for at in fused), reverse=True)
    assert [each.rerank.rank for each in told if each.rerank] == list(range(1, len(told) + 1))


def test_fates_are_those_of_the_answer(library: World, searcher: Searcher) -> None:
    answer = ask(searcher, library, top_k=4, rerank="none")
    assert answer.explanation is not None
    cited = {p.rank: p.citation for p in answer.passages}
    fates = [each.fate for each in answer.explanation]
    assert fates.count("passage") == 4 and "below_cut" in fates
    for each in answer.explanation:
        if each.fate in ("passage", "merged"):
            assert each.passage is not None
            at = cited[each.passage]
            assert at.external_id == each.external_id and at.start <= each.start and each.end <= at.end
    all_of_it = ask(searcher, library, top_k=50, rerank="none")
    assert all_of_it.explanation is not None
    (again,) = (each for each in all_of_it.explanation if each.fate == "duplicate")
    (said,) = (p for p in all_of_it.passages if p.rank == again.passage)
    assert {again.external_id, said.citation.external_id} == {"one", "two"}
    assert "merged" in {each.fate for each in all_of_it.explanation}


def test_what_the_budget_leaves_out_is_said(library: World, searcher: Searcher) -> None:
    answer = ask(searcher, library, top_k=8, max_tokens=60)
    assert answer.explanation is not None
    (over,) = (stage.detail["over_budget"] for stage in answer.activity if stage.stage == "assemble")
    left_out = {each.external_id for each in answer.explanation if each.fate == "over_budget" and each.passage is None}
    assert over > 0 and len(left_out) >= 1
    assert left_out.isdisjoint({p.citation.external_id for p in answer.passages}) or "long" in left_out


def test_of_what_is_hidden_nothing_is_told_nor_counted(library: World, searcher: Searcher) -> None:
    told = search_out(ask(searcher, library, top_k=3), operator=False)["explanation"]
    assert not any(each["external_id"].startswith("b") for each in told)
    assert any(each.external_id.startswith("b") for each in ask(searcher, library, BEN).explanation or ())
    fetch(library, "DELETE FROM documents WHERE external_id LIKE 'b_' RETURNING 1")
    assert search_out(ask(searcher, library, top_k=3), operator=False)["explanation"] == told


def test_the_audit_names_what_was_told_of(library: World, searcher: Searcher) -> None:
    answer = ask(searcher, library, top_k=1)
    ((detail,),) = fetch(library, "SELECT detail FROM audit_log WHERE request_id = %s", answer.request_id)
    assert answer.explanation is not None and detail["explain"] is True
    assert set(detail["documents"]) == {f"{each.document_id}@{each.version}" for each in answer.explanation}


def test_it_is_told_when_asked_for(api: Api) -> None:
    api.world.add("d", "the red lamp")
    key = api.key("reader", "search")
    plain, told = (api.http.post("/v1/search", json={"query": "lamp", **more}, headers=key).json()
                   for more in ({}, {"explain": True}))  # fmt: skip
    assert "explanation" not in plain
    (one,) = told["explanation"]
    assert (one["external_id"], one["fate"], one["passage"], one["fused"]["rank"]) == ("d", "passage", 1, 1)
    assert {k: v for k, v in told.items() if k not in ("explanation", "request_id", "activity")} == {
        k: v for k, v in plain.items() if k not in ("request_id", "activity")
    }


def test_a_person_reads_it_as_a_table(library: World, searcher: Searcher) -> None:
    lines = as_text(ask(searcher, library, top_k=3)).splitlines()
    head = next(n for n, line in enumerate(lines) if "document" in line and "became" in line)
    assert {"dense", "lexical", "fused", "rerank"} <= set(lines[head].split())
    assert "passage [1]" in lines[head + 1] and any("below cut" in line for line in lines[head:])
