"""Rankings by documents and by passages against figures worked out without our code."""

import math
from collections.abc import Mapping, Sequence

import pytest
from ir_measures import P, R, nDCG

from core.records import Candidate, FusedCandidate, Fusion, Place
from eval.compare import Table, leg_rankings, rows_of, summary_markdown, to_dict, to_markdown, to_text, values_of
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.judged import Judged, judge
from eval.legs import Answers
from retrieval.fuse import convex, rrf


def golden(*queries: GoldenQuery) -> GoldenSet:
    return GoldenSet("golden", "", queries)


def asks(name: str, *judgements: Judgement) -> GoldenQuery:
    return GoldenQuery(name, f"question {name}", "service:eval", judgements)


def documents(*names: str) -> list[Place]:
    return [Place(name, number, number + 1) for number, name in enumerate(names)]


def firsts(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Those of the only question."""
    return {name: value for name, (value,) in values.items()}


def test_the_worked_example_of_wikipedia() -> None:
    """Discounted cumulative gain, "Example": six results graded 3, 2, 3, 0, 1, 2, two more documents of 3 and 2 known.

    The article gives DCG6 = 6.861, IDCG6 = 8.740 and nDCG6 = 0.785.
    """
    grades = {"D1": 3, "D2": 2, "D3": 3, "D4": 0, "D5": 1, "D6": 2, "D7": 3, "D8": 2}
    judged = Judged("document", {"q": grades})
    found = values_of(judged, {"q": documents("D1", "D2", "D3", "D4", "D5", "D6")}, [nDCG @ 6])
    assert found["nDCG@6"] == [pytest.approx(0.785, abs=0.0005)]


def test_a_document_ranks_where_its_best_passage_does() -> None:
    judged = judge(golden(asks("q", Judgement("b"), Judgement("c"))), [])
    passages = [Place("a", 0, 5), Place("a", 5, 9), Place("b", 0, 4), Place("a", 9, 12), Place("b", 4, 9)]
    assert judged.ranking(passages) == ["a", "b"]
    ideal = 1 + 1 / math.log2(3)
    found = values_of(judged, {"q": passages})
    assert firsts(found) == pytest.approx({"nDCG@10": (1 / math.log2(3)) / ideal, "R@50": 1 / 2, "P@5": 1 / 5})


SPANS = [Place("t", 0, 10), Place("t", 10, 20), Place("t", 20, 30), Place("other", 0, 30)]


@pytest.mark.parametrize(
    ("span", "relevant"),
    [
        ((10, 20), ["t#10-20"]),  # half-open at both ends: its neighbours only touch it
        ((9, 10), ["t#0-10"]),
        ((19, 21), ["t#10-20", "t#20-30"]),
        ((0, 30), ["t#0-10", "t#10-20", "t#20-30"]),
        ((30, 40), []),
    ],
)
def test_a_passage_is_relevant_when_it_shares_a_character(span: tuple[int, int], relevant: Sequence[str]) -> None:
    judged = judge(golden(asks("q", Judgement("t", span=span))), SPANS)
    assert judged.unit == "passage"
    assert judged.grades == {"q": dict.fromkeys(relevant, 1)}


def test_passages_have_every_relevant_one_of_the_index_for_an_ideal() -> None:
    judged = judge(golden(asks("q", Judgement("t", span=(5, 25)), Judgement("t", span=(8, 9)))), SPANS)
    found = values_of(judged, {"q": [SPANS[3], SPANS[1]]})
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert firsts(found) == pytest.approx({"nDCG@10": (1 / math.log2(3)) / ideal, "R@50": 1 / 3, "P@5": 1 / 5})


def test_a_question_that_nothing_answers_counts_as_nought() -> None:
    judged = judge(golden(asks("in", Judgement("t", span=(0, 5))), asks("out", Judgement("t", span=(90, 95)))), SPANS)
    assert values_of(judged, {"in": [SPANS[0]], "out": [SPANS[1]]}, [nDCG @ 10, P @ 1, R @ 5]) == {
        "nDCG@10": [1, 0], "P@1": [1, 0], "R@5": [1, 0],
    }  # fmt: skip
    assert values_of(judged, {}, [nDCG @ 10]) == {"nDCG@10": [0, 0]}


DENSE = {1: 0.9, 2: 0.5, 3: 0.1}
LEXICAL = {3: 8.0, 4: 6.0}
PLACES = {1: Place("a", 0, 1), 2: Place("b", 0, 1), 3: Place("c", 0, 1), 4: Place("d", 0, 1)}


def answers(leg: str, scores: Mapping[int, float]) -> Answers:
    found = tuple(FusedCandidate(i, 0.0, **{leg: score}) for i, score in scores.items())  # type: ignore[arg-type]
    return Answers({"q": found}, {i: PLACES[i] for i in scores})


def test_fusions_are_those_of_the_search() -> None:
    dense, lexical = ([Candidate(i, s) for i, s in scores.items()] for scores in (DENSE, LEXICAL))
    legs = {"dense": answers("dense", DENSE), "lexical": answers("lexical", LEXICAL)}
    found = leg_rankings(legs, [("ranks", Fusion("rrf")), ("scores", Fusion("convex", 0.3))])  # type: ignore[arg-type]
    assert found["dense"]["q"] == [PLACES[1], PLACES[2], PLACES[3]]
    assert found["ranks"]["q"] == [PLACES[c.chunk_id] for c in rrf(dense, lexical)]
    assert found["scores"]["q"] == [PLACES[c.chunk_id] for c in convex(dense, lexical, 0.3)]


def test_the_gain_is_over_the_better_leg() -> None:
    judged = judge(golden(asks("q", Judgement("a")), asks("r", Judgement("a"))), [])
    first, second, never = documents("a"), documents("x", "a"), documents("x")
    half = 1 / math.log2(3)
    best, rows = rows_of(judged, {
        "dense": {"q": second, "r": second}, "lexical": {"q": first, "r": never}, "both": {"q": first, "r": second},
    })  # fmt: skip
    assert best == "dense"  # 0.63 twice against 1 and 0
    gains = {row.name: row.gain.mean if row.gain else None for row in rows}
    assert gains == {"dense": None, "lexical": pytest.approx(0.5 - half), "both": pytest.approx((1 - half) / 2)}
    table = Table("c", "test", None, "document", 2, 3, 2, best, rows)
    assert to_dict(table)["rows"][2]["measures"]["nDCG@10"]["mean"] == pytest.approx((1 + half) / 2)
    assert f"{(1 + half) / 2:.3f} [" in to_text(table) and f"{(1 - half) / 2:+.3f} [" in to_markdown(table)


def test_a_reranker_is_held_against_the_fusion_before_it() -> None:
    judged = judge(golden(*(asks(f"q{n}", Judgement("a")) for n in range(12))), [])
    first, second, third = documents("a"), documents("x", "a"), documents("x", "y", "a")
    every = {name: dict.fromkeys(judged.grades, ranking) for name, ranking in (
        ("dense", second), ("lexical", third), ("convex 0.4, the tenant's", second), ("convex 0.4, then late", first),
    )}  # fmt: skip
    best, rows = rows_of(judged, every)
    by_name = {row.name: row for row in rows}
    over = by_name["convex 0.4, then late"].over
    assert over is not None and (over.mean, over.low) == pytest.approx((1 - 1 / math.log2(3),) * 2)
    assert [name for name, row in by_name.items() if row.over] == ["convex 0.4, then late"]
    table = Table("c", "test", None, "document", 2, 3, 12, best, rows)
    told = summary_markdown([table, table])
    assert "| lexical | none | none | c test, c test |" in told and "| dense | none | none | none |" in told
    assert "| convex 0.4, the tenant's | none | c test, c test | none |" in told
    assert "Against the same fusion without it, `late` is better on c test, c test; worse on none" in told
