"""Measures against their formulas, written out: TREC's conventions on ties, unjudged documents and empty answers."""

import math
from collections.abc import Sequence
from itertools import combinations
from uuid import UUID

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import Citation
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.measures import Leak, documents_within, forbidden_returned, mean_values, percentile, query_values
from eval.run import Answered, Run

ANA = "user:ana@acme.example"


def citations(*documents: str) -> tuple[Citation, ...]:
    return tuple(
        Citation("[1]", UUID(int=0), document, 1, None, None, None, (), place, place + 1, "")
        for place, document in enumerate(documents)
    )


def run_of(cutoffs: Sequence[int], *answered: tuple[GoldenQuery, Sequence[str]]) -> Run:
    golden = GoldenSet("golden", "", tuple(query for query, _ in answered))
    answers = tuple(Answered(query, citations(*documents), 1.0, ()) for query, documents in answered)
    return Run(golden, tuple(cutoffs), "hybrid", answers)


def asks(name: str, grades: dict[str, int], forbidden: Sequence[str] = ()) -> GoldenQuery:
    relevant = tuple(Judgement(document, grade) for document, grade in grades.items())
    return GoldenQuery(name, f"question {name}", ANA, relevant, tuple(forbidden))


def log2(x: float) -> float:
    return math.log(x) / math.log(2)


def test_graded_ranking_with_an_unjudged_document() -> None:
    # ranks: 1 unjudged, 2 grade 3, 3 unjudged, 4 grade 1; grade 2 is not found
    run = run_of([1, 3, 5], (asks("q", {"a": 3, "b": 2, "c": 1}), ["x", "a", "y", "c"]))
    values = query_values(run)["q"]
    dcg = 3 / log2(3) + 1 / log2(5)
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    expected = {
        "P@1": 0, "R@1": 0, "nDCG@1": 0, "RR@1": 0,
        "P@3": 1 / 3, "R@3": 1 / 3, "nDCG@3": (3 / log2(3)) / ideal, "RR@3": 1 / 2,
        "P@5": 2 / 5, "R@5": 2 / 3, "nDCG@5": dcg / ideal, "RR@5": 1 / 2,
    }  # fmt: skip
    assert values == pytest.approx(expected)


def test_the_ideal_ranking_is_cut_at_k_too() -> None:
    values = query_values(run_of([1], (asks("q", {"a": 1, "b": 2, "c": 2}), ["b"])))["q"]
    assert values == pytest.approx({"P@1": 1, "R@1": 1 / 3, "nDCG@1": 1, "RR@1": 1})


def test_passages_are_cut_before_documents_are_told_apart() -> None:
    passages = citations("a", "a", "b", "a", "c")
    assert [documents_within(passages, k) for k in (1, 2, 3, 5)] == [("a",), ("a",), ("a", "b"), ("a", "b", "c")]
    # Two of three passages are of `a`: b is the second document, and P divides by the 3 passages that were read.
    values = query_values(run_of([3], (asks("q", {"b": 1, "c": 1}), ["a", "a", "b", "c"])))["q"]
    ideal = 1 / log2(2) + 1 / log2(3)
    assert values == pytest.approx({"P@3": 1 / 3, "R@3": 1 / 2, "nDCG@3": (1 / log2(3)) / ideal, "RR@3": 1 / 2})


def test_the_answers_order_stands_whatever_the_documents_are_called() -> None:
    # trec_eval puts equal scores in falling order of name; the order that the search gave is not a tie.
    for documents in (["a", "z"], ["z", "a"]):
        values = query_values(run_of([1, 2], (asks("q", {"a": 1}), documents)))["q"]
        assert values["RR@2"] == 1 / (documents.index("a") + 1)
        assert values["P@1"] == (1 if documents[0] == "a" else 0)


def test_an_empty_answer_scores_zero_and_counts_in_the_mean() -> None:
    run = run_of([5], (asks("full", {"a": 1}), ["a"]), (asks("empty", {"b": 1}), []))
    values = query_values(run)
    assert values["empty"] == {"P@5": 0, "R@5": 0, "nDCG@5": 0, "RR@5": 0}
    assert mean_values(values.values()) == pytest.approx({"P@5": 0.1, "R@5": 0.5, "nDCG@5": 0.5, "RR@5": 0.5})


def test_nothing_but_empty_answers_scores_zero() -> None:
    assert set(query_values(run_of([1, 10], (asks("q", {"a": 2}), [])))["q"].values()) == {0.0}


def test_a_question_without_a_relevant_document_is_left_out_of_the_means() -> None:
    denied = asks("denied", {}, ["secret"])
    judged_zero = asks("zero", {"a": 0})
    values = query_values(run_of([1], (denied, ["a"]), (judged_zero, ["a"]), (asks("q", {"a": 1}), ["a"])))
    assert list(values) == ["q"]
    assert mean_values(values.values())["P@1"] == 1


def test_only_unanswerable_questions_have_no_mean() -> None:
    assert query_values(run_of([1], (asks("denied", {}, ["secret"]), ["secret"]))) == {}
    assert mean_values([]) == {}


def test_forbidden_documents_count_once_a_question_and_at_any_rank() -> None:
    run = run_of(
        [1],
        (asks("one", {"a": 1}, ["s1", "s2", "s3"]), ["a", "b", "s2", "s2", "s1"]),
        (asks("two", {}, ["s1"]), []),
        (asks("three", {}, ["s1"]), ["s1"]),
    )
    assert forbidden_returned(run) == [
        Leak("one", ANA, "s1", 5),
        Leak("one", ANA, "s2", 3),
        Leak("three", ANA, "s1", 1),
    ]


def test_what_is_forbidden_to_one_question_is_not_a_leak_in_another() -> None:
    run = run_of([1], (asks("one", {}, ["s1"]), ["s2"]), (asks("two", {}, ["s2"]), ["s1"]))
    assert forbidden_returned(run) == []


def test_percentiles_by_nearest_rank() -> None:
    values = [50.0, 15.0, 40.0, 20.0, 35.0]  # the textbook's five
    assert [percentile(values, share) for share in (0.05, 0.30, 0.40, 0.50, 1.0)] == [15, 20, 20, 35, 50]


# --- any ranking against the formulas -------------------------------------------------------------------------------


def by_formula(grades: dict[str, int], documents: Sequence[str], k: int) -> dict[str, float]:
    """P, R, nDCG and RR from their definitions (TREC; Järvelin & Kekäläinen 2002 with log2)."""
    found = [grades.get(document, 0) for document in documents]
    hits = sum(grade > 0 for grade in found)
    ideal = sorted(grades.values(), reverse=True)[:k]

    def dcg(gains: Sequence[int]) -> float:
        return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))

    first = next((rank for rank, grade in enumerate(found, start=1) if grade > 0), math.inf)
    return {
        f"P@{k}": hits / k,
        f"R@{k}": hits / sum(grade > 0 for grade in grades.values()),
        f"nDCG@{k}": dcg(found) / dcg(ideal),
        f"RR@{k}": 1 / first,
    }


NAMES = st.sampled_from(["a", "b", "c", "d", "é", "x y", "z/1.md"])
GRADED = st.dictionaries(NAMES, st.integers(1, 3), min_size=1)


@given(GRADED, st.lists(NAMES, max_size=15), st.integers(1, 12))
def test_every_ranking_equals_the_formulas(grades: dict[str, int], documents: list[str], k: int) -> None:
    within: list[str] = []
    for document in documents[:k]:
        if document not in within:
            within.append(document)
    values = query_values(run_of([k], (asks("q", grades), documents)))["q"]
    assert values == pytest.approx(by_formula(grades, within, k))


@given(st.lists(st.tuples(GRADED, st.lists(NAMES, max_size=6)), min_size=1, max_size=5))
def test_means_are_those_of_ir_measures(answers: list[tuple[dict[str, int], list[str]]]) -> None:
    asked = [(asks(str(n), grades), list(dict.fromkeys(ranked))) for n, (grades, ranked) in enumerate(answers)]
    ours = mean_values(query_values(run_of([6], *asked)).values())
    qrels = {query.id: query.gains() for query, _ in asked}
    ranking = {query.id: {document: 100.0 - n for n, document in enumerate(ranked)} for query, ranked in asked}
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in ours], qrels, ranking)
    assert ours == pytest.approx({str(measure): value for measure, value in theirs.items()})


def test_the_better_order_of_two_grades_has_the_larger_ndcg() -> None:
    grades = {"a": 3, "b": 2, "c": 1}
    for better, worse in combinations("abc", 2):
        pair = [
            query_values(run_of([2], (asks("q", grades), order)))["q"]["nDCG@2"]
            for order in (better + worse, worse + better)
        ]
        assert pair[0] > pair[1]
