"""Younger documents first, by the formula, as far as it is asked for; those without a date neither gain nor lose."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Invalid
from core.records import FusedCandidate, Fusion, Recency, SearchAnswer, SearchRequest
from retrieval.recency import blend, date_of
from retrieval.search import Searcher, search
from tests.conftest import Api, World
from tests.integration.rows import fetch

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DATES = {"today": NOW, "month": NOW - timedelta(30), "year": NOW - timedelta(360), "future": NOW + timedelta(9)}


@pytest.fixture
def library(world: World) -> World:
    """Documents that differ in their date alone, one of which says none, and one that says nonsense."""
    for name, at in {**DATES, "none": None, "nonsense": None}.items():
        submitted = world.add(name, f"the red lamp, as of {name}")
        told = '{"day": "the day after"}' if name == "nonsense" else "{}" if at is None else f'{{"day": "{at.date()}"}}'
        fetch(world, "UPDATE documents SET metadata = %s, updated_at = %s WHERE id = %s RETURNING 1", told,
              at or NOW, submitted.document_id)  # fmt: skip
    return world


def ask(searcher: Searcher, world: World, recency: Recency | None, **more: Any) -> SearchAnswer:
    """As Ana, on the first of June."""
    asked = SearchRequest("red lamp", rerank="none", top_k=50, recency=recency, **more)
    return search(replace(searcher, now=lambda: NOW), world.who("user:ana"), asked)


@pytest.mark.parametrize("method", ["convex", "rrf"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_scores_are_those_of_the_formula(library: World, searcher: Searcher, method: Any, weight: float) -> None:
    fusion = Fusion(method)
    plain = {p.citation.external_id: p.score for p in ask(searcher, library, None, fusion=fusion).passages}
    aged = ask(searcher, library, Recency(30, weight, "metadata.day"), fusion=fusion).passages
    top, days = max(plain.values()), {"today": 0, "month": 30, "year": 360, "future": 0}
    for passage in aged:
        name = passage.citation.external_id
        expected = plain[name]
        if name in days:
            expected = (1 - weight) * plain[name] + weight * top * 2 ** (-days[name] / 30)
        assert passage.score == pytest.approx(expected, rel=1e-12)
    assert len(aged) == len(plain) and [p.score for p in aged] == sorted((p.score for p in aged), reverse=True)


def test_the_documents_own_times_do(library: World, searcher: Searcher) -> None:
    order = [p.citation.external_id for p in ask(searcher, library, Recency(10, 1.0)).passages]
    assert order[-2:] == ["month", "year"]
    with pytest.raises(Invalid, match="created_at"):
        ask(searcher, library, Recency(10, 1.0, "title"))


def test_what_has_no_date_stays_where_it_is() -> None:
    fused = [FusedCandidate(1, 0.5), FusedCandidate(2, 0.4)]
    assert blend({}, fused, Recency(1), NOW) == fused
    assert blend({2: NOW}, fused, Recency(1, 0.5), NOW) == [fused[0], FusedCandidate(2, 0.5 * 0.4 + 0.5 * 0.5)]
    assert blend({}, [], Recency(1), NOW) == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-06-01", NOW),
        ("2026-06-01T02:00:00+02:00", NOW),
        ("2026-06-01T00:00:00Z", NOW),
        ("June", None),
        ("", None),
        (None, None),
        ("2026", None),
    ],
)
def test_dates_are_iso_8601(text: str | None, at: datetime | None) -> None:
    assert date_of(text) == at


def test_over_http(api: Api) -> None:
    api.world.add("d", "the red lamp")
    key = api.key("reader", "search")
    for recency, status in (({"half_life_days": 30}, 200), ({"half_life_days": 0}, 422), ({"weight": 1}, 422),
                            ({"half_life_days": 1, "field": "title"}, 422), ({"half_life_days": 1, "weight": 2}, 422),
                            ({"half_life_days": 1, "field": "metadata.a.b"}, 200)):  # fmt: skip
        answer = api.http.post("/v1/search", json={"query": "lamp", "recency": recency}, headers=key)
        assert answer.status_code == status, answer.text
