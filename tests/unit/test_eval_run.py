"""A run from its questions to its report, over a search that answers from a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from core.errors import Invalid, StoreUnavailable
from core.records import Citation, FusedCandidate, Passage, Principal, SearchAnswer, SearchRequest
from eval.golden import GoldenSet, read_golden
from eval.report import make_report, to_dict, to_text
from eval.run import run_golden

TENANT = UUID(int=7)
ANA, BO = "user:ana@acme.example", "user:bo@acme.example"


class TableSearch:
    """Answers each (subject, question) with the documents of a table, and remembers who asked what."""

    def __init__(self, table: Mapping[tuple[str, str], Sequence[str]], degraded: tuple[str, ...] = ()) -> None:
        self.table, self.degraded = table, degraded
        self.asked: list[tuple[Principal, SearchRequest]] = []

    def __call__(self, principal: Principal, request: SearchRequest) -> SearchAnswer:
        self.asked.append((principal, request))
        documents = self.table.get((principal.subject, request.query), ())[: request.top_k]
        passages = tuple(passage(rank, document) for rank, document in enumerate(documents, start=1))
        return SearchAnswer(UUID(int=0), passages, "", self.degraded, ())


def passage(rank: int, document: str) -> Passage:
    citation = Citation(f"[{rank}]", UUID(int=0), document, 1, None, None, None, (), rank, rank + 1, "")
    return Passage(rank, 1 / rank, "text", citation, FusedCandidate(rank, 1 / rank))


@pytest.fixture
def golden(tmp_path: Path) -> GoldenSet:
    """Two answerable questions of two people, and one whose only document is denied."""
    lines: list[dict[str, object]] = [
        {"id": "leave", "query": "leave?", "as": ANA, "relevant": [{"document": "leave"}], "tags": ["hr", "easy"]},
        {"id": "pay", "query": "pay?", "as": BO, "relevant": [{"document": "pay"}], "forbidden": ["board"]},
        {"id": "board", "query": "board?", "as": ANA, "forbidden": ["board"], "tags": ["denied"]},
    ]
    lines[1]["tags"] = ["hr"]
    path = tmp_path / "golden.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_golden(path)


SAFE = {(ANA, "leave?"): ["leave", "x"], (BO, "pay?"): ["x", "x", "pay"], (ANA, "board?"): ["x"]}
LEAKY = SAFE | {(ANA, "board?"): ["x"] * 14 + ["board"]}


def test_each_question_is_asked_once_as_its_own_principal(golden: GoldenSet) -> None:
    search = TableSearch(SAFE)
    run = run_golden(search, TENANT, golden, [5, 1, 5], "lexical")
    assert [principal for principal, _ in search.asked] == [
        Principal(TENANT, s, via="service:eval") for s in (ANA, BO, ANA)
    ]
    assert [request.query for _, request in search.asked] == ["leave?", "pay?", "board?"]
    assert {request.mode for _, request in search.asked} == {"lexical"}
    assert {request.top_k for _, request in search.asked} == {25}
    assert run.cutoffs == (1, 5)
    assert [answered.query.id for answered in run.answers] == ["leave", "pay", "board"]


def test_progress_counts_the_answered(golden: GoldenSet) -> None:
    told: list[int] = []
    run_golden(TableSearch(SAFE), TENANT, golden, [1], progress=told.append)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("cutoffs", [[], [0], [5, -1]])
def test_a_cutoff_below_one_is_refused(golden: GoldenSet, cutoffs: list[int]) -> None:
    with pytest.raises(Invalid, match="from 1 on"):
        run_golden(TableSearch(SAFE), TENANT, golden, cutoffs)


def test_a_failing_search_fails_the_run(golden: GoldenSet) -> None:
    def broken(principal: Principal, request: SearchRequest) -> SearchAnswer:
        raise StoreUnavailable("Postgres did not answer")

    with pytest.raises(StoreUnavailable):
        run_golden(broken, TENANT, golden, [1])


def test_the_report_of_a_safe_run(golden: GoldenSet) -> None:
    report = make_report(run_golden(TableSearch(SAFE), TENANT, golden, [1, 3]))
    # leave at rank 1; pay as the second document of three passages; the denied question is in no mean
    assert report.overall.queries == 2
    assert report.overall.measures["P@1"] == pytest.approx((1 + 0) / 2)
    assert report.overall.measures["P@3"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert report.overall.measures["RR@3"] == pytest.approx((1 + 1 / 2) / 2)
    assert {tag: s.queries for tag, s in report.tags.items()} == {"denied": 0, "easy": 1, "hr": 2}
    assert report.tags["easy"].measures["RR@3"] == 1
    assert report.tags["denied"].measures == {}
    assert (report.forbidden_judged, report.forbidden_returned) == (2, ())
    assert 0 <= report.ms_p50 <= report.ms_p95 <= report.ms["p99"]
    assert (report.ms["p50"], report.ms["p95"]) == (report.ms_p50, report.ms_p95)
    assert [query.documents for query in report.queries] == [("leave", "x"), ("x", "pay"), ("x",)]


def test_a_leak_beyond_the_largest_cutoff_is_found(golden: GoldenSet) -> None:
    report = make_report(run_golden(TableSearch(LEAKY), TENANT, golden, [3]))
    (leak,) = report.forbidden_returned
    assert (leak.query_id, leak.subject, leak.document, leak.rank) == ("board", ANA, "board", 15)
    assert f"{ANA} was given board at rank 15" in to_text(report)


def test_the_report_as_json_counts_and_lists_what_leaked(golden: GoldenSet) -> None:
    run = run_golden(TableSearch(LEAKY, degraded=("dense",)), TENANT, golden, [3])
    written = json.loads(json.dumps(to_dict(make_report(run)), allow_nan=False))
    leak = {"query_id": "board", "subject": ANA, "document": "board", "rank": 15}
    assert written["forbidden"] == {"judged": 2, "count": 1, "returned": [leak]}
    assert written["degraded"] == {"dense": 3}
    assert written["scored"] == 2
    assert set(written["measures"]) == {"P@3", "R@3", "nDCG@3", "RR@3", "unjudged@3"}
    assert written["digest"] == golden.digest
    assert [query["id"] for query in written["queries"]] == ["leave", "pay", "board"]


def test_the_page_shows_measures_slices_and_the_worst_question(golden: GoldenSet) -> None:
    page = to_text(make_report(run_golden(TableSearch(SAFE, degraded=("lexical",)), TENANT, golden, [1, 3])))
    rows = [line.split() for line in page.splitlines()]
    assert ["@1", "@3"] in rows
    assert ["RR", "0.500", "0.750"] in rows
    assert ["tag:easy", "1", "0.333", "1.000", "1.000", "1.000"] in rows
    assert "forbidden documents returned: 0 of 2 judged" in page
    assert "3 answers went without lexical" in page
    worst = next(line for line in page.splitlines() if BO in line)
    assert worst.endswith("pay?")
    assert not any(ANA in line for line in page.splitlines())  # its only answerable question is answered perfectly


def test_a_set_that_only_forbids_has_nothing_to_average(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text(json.dumps({"query": "board?", "as": ANA, "forbidden": ["board"]}))
    report = make_report(run_golden(TableSearch(SAFE), TENANT, read_golden(path), [1]))
    assert report.overall.measures == {}
    assert "nothing to average" in to_text(report)
    json.dumps(to_dict(report), allow_nan=False)


def test_the_page_keeps_control_characters_from_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    hostile = "red \x1b[31m and\nnext\u202e line"
    path.write_text(json.dumps({"query": hostile, "as": ANA, "relevant": [{"document": "d"}], "tags": ["t\x1b]0;"]}))
    page = to_text(make_report(run_golden(TableSearch({}), TENANT, read_golden(path), [1])))
    assert all(c.isprintable() for c in page.replace("\n", ""))
    assert "red [31m and next line" in page
