"""The measures against trec_eval's own figures, and Average Precision, Success and Bpref against their formulas."""

from pathlib import Path

import ir_measures
import pytest

from core.errors import Invalid
from eval.measures import parse_measures, query_values, unjudged
from tests.unit.test_eval_measures import asks, run_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = {"map": "AP", "bpref": "Bpref", "recip_rank": "RR", "P": "P", "recall": "R", "map_cut": "AP",
         "ndcg_cut": "nDCG", "success": "Success"}  # fmt: skip


def printed() -> dict[tuple[str, str], float]:
    """(question, measure) → the value that trec_eval printed, under ir-measures' name."""
    found = {}
    for line in (FIXTURES / "trec_eval.txt").read_text().splitlines():
        name, query, value = line.split()
        base, _, cutoff = name.rpartition("_")
        cut = cutoff.isdecimal()
        found[query, f"{NAMES[base if cut else name]}@{cutoff}" if cut else NAMES[name]] = float(value)
    return found


def fixture_run() -> dict[str, tuple[dict[str, int], list[str]]]:
    """Each question's grades, and its documents in the order in which trec_eval takes them: equal scores by name."""
    grades: dict[str, dict[str, int]] = {}
    for line in (FIXTURES / "trec_qrels.txt").read_text().splitlines():
        query, _, document, grade = line.split()
        grades.setdefault(query, {})[document] = int(grade)
    scored: dict[str, list[tuple[float, str]]] = {}
    for line in (FIXTURES / "trec_run.txt").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        scored.setdefault(query, []).append((float(score), document))
    return {
        query: (of, [document for _, document in sorted(scored[query], reverse=True)]) for query, of in grades.items()
    }


def test_every_value_is_what_trec_eval_printed() -> None:
    expected = printed()
    measures = parse_measures(",".join(dict.fromkeys(name for _, name in expected)))
    run = run_of([10], *((asks(query, grades), ranked) for query, (grades, ranked) in fixture_run().items()))
    values = query_values(run, measures)
    assert {(query, name): round(of[name], 4) for query, of in values.items() for name in of} == expected
    assert len(expected) == 5 * 14


def test_average_precision_by_its_formula() -> None:
    # relevant at ranks 2 and 4 of three: the precision there, over all three (Voorhees & Harman 2005)
    values = query_values(run_of([5], (asks("q", {"a": 3, "b": 1, "c": 1}), ["x", "a", "y", "b"])),
                          parse_measures("AP,AP@3,Success@1,Success@2"))["q"]  # fmt: skip
    expected = {"AP": (1 / 2 + 2 / 4) / 3, "AP@3": (1 / 2) / 3, "Success@1": 0, "Success@2": 1}
    assert values == pytest.approx(expected)


def test_bpref_by_its_formula_passes_over_the_unjudged() -> None:
    # R = 2 relevant, N = 3 judged irrelevant: 1/R · Σ over found (1 - irrelevant above / min(R, N)); Buckley 2004
    grades = {"a": 1, "b": 1, "n1": 0, "n2": 0, "n3": 0}
    with_strays = run_of([5], (asks("q", grades), ["u1", "n1", "a", "u2", "b"]))
    without = run_of([5], (asks("q", grades), ["n1", "a", "b"]))
    expected = ((1 - 1 / 2) + (1 - 1 / 2)) / 2
    for run in (with_strays, without):
        assert query_values(run, parse_measures("Bpref"))["q"]["Bpref"] == pytest.approx(expected)


def test_nothing_came_and_everything_is_unjudged() -> None:
    run = run_of([5], (asks("none", {"a": 1}), []), (asks("strays", {"a": 1}), ["x", "y"]))
    values = query_values(run, parse_measures("AP,Bpref,Success@5,nDCG@5,RR,P@5,R@5"))
    assert {value for of in values.values() for value in of.values()} == {0.0}


def test_unjudged_counts_distinct_documents_within_the_cutoff() -> None:
    run = run_of([4], (asks("q", {"a": 1, "n": 0}), ["a", "a", "x", "n", "y"]), (asks("none", {"a": 1}), []))
    assert unjudged(run, 4) == {"q": 1 / 3, "none": 0.0}  # a, x, n: x is nobody's; y came later


@pytest.mark.parametrize("written", ["ERR@10", "nDCG@0", "P(rel=2)@5", "P@", "nDCG@ten", "__import__('os')"])
def test_what_is_no_measure_here_is_told(written: str) -> None:
    with pytest.raises(Invalid, match="choose from P, R, nDCG"):
        parse_measures(written)


def test_names_are_those_of_ir_measures() -> None:
    written = "nDCG@10,AP@100,Bpref,Success@5,RR"
    assert [str(measure) for measure in parse_measures(f" {written},AP@100")] == written.split(",")
    assert parse_measures("") == ()
    assert ir_measures.parse_measure("AP@100") == parse_measures("AP@100")[0]
