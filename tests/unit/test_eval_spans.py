"""Span measures: by hand, against a count of single characters, and against the published program's figures."""

from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import Place
from eval.spans import span_scores, span_values, union
from tests.unit.chroma_answers import answers

CHROMA = Path(__file__).parents[3] / "shared" / "data" / "retrieval" / "chroma-chunking"


def places(*spans: tuple[int, int], document: str = "d") -> list[Place]:
    return [Place(document, start, end) for start, end in spans]


def test_one_passage_over_half_a_span() -> None:
    scores = span_scores(places((0, 100)), places((50, 150)))
    # 50 characters found; 100 came; 100 were wanted, of which 50 are missed
    assert (scores.precision, scores.recall, scores.iou) == (50 / 100, 50 / 100, 50 / (100 + 50))


def test_a_passage_that_comes_twice_is_found_once_and_paid_for_twice() -> None:
    scores = span_scores(places((0, 100), (0, 100)), places((0, 40)))
    assert (scores.precision, scores.recall, scores.iou) == (40 / 200, 1.0, 40 / 200)


def test_other_documents_only_cost() -> None:
    scores = span_scores([*places((0, 50)), *places((0, 50), document="other")], places((0, 50)))
    assert (scores.precision, scores.recall, scores.iou) == (0.5, 1.0, 0.5)


def test_nothing_came_and_nothing_met() -> None:
    for passages in ([], places((100, 200))):
        scores = span_scores(passages, places((0, 50)))
        assert (scores.precision, scores.recall, scores.iou) == (0.0, 0.0, 0.0)


def test_touching_is_not_meeting() -> None:
    assert span_scores(places((50, 60)), places((0, 50))).recall == 0.0


def test_cutoffs_count_passages() -> None:
    values = span_values(places((0, 10), (10, 20)), places((10, 20)), [1, 2])
    assert values == {"SpanP@1": 0, "SpanR@1": 0, "SpanIoU@1": 0, "SpanP@2": 0.5, "SpanR@2": 1, "SpanIoU@2": 0.5}


SPAN = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda each: (each[0], each[0] + each[1]))
DOCUMENT = st.sampled_from("de")
PLACES = st.lists(st.builds(lambda d, s: Place(d, *s), DOCUMENT, SPAN), max_size=6)


@given(PLACES, st.lists(st.builds(lambda d, s: Place(d, *s), DOCUMENT, SPAN), min_size=1, max_size=4))
def test_any_answer_by_counting_characters(passages: list[Place], judged: list[Place]) -> None:
    def characters(of: list[Place]) -> set[tuple[str, int]]:
        return {(p.external_id, at) for p in of for at in range(p.start, p.end)}

    came, found = characters(passages), characters(passages) & characters(judged)
    returned = sum(p.end - p.start for p in passages)
    missed = sum((p.external_id, at) not in came for p in judged for at in range(p.start, p.end))
    scores = span_scores(passages, judged)
    assert scores.precision == pytest.approx(len(found) / returned if returned else 0)
    assert scores.recall == pytest.approx(len(found) / sum(p.end - p.start for p in judged))
    assert scores.iou == pytest.approx(len(found) / (returned + missed))


@given(st.lists(SPAN, max_size=8))
def test_a_union_is_the_same_places_in_order(spans: list[tuple[int, int]]) -> None:
    merged = union(spans)
    assert {at for s, e in merged for at in range(s, e)} == {at for s, e in spans for at in range(s, e)}
    assert all(before[1] < after[0] for before, after in zip(merged, merged[1:], strict=False))


@pytest.mark.skipif(not CHROMA.is_dir(), reason="Chroma's chunking questions are not on this machine")
def test_chromas_program_on_chromas_questions() -> None:
    """Its `_scores_from_dataset_and_retrievals` gave these means and rows for the same 472 answers."""
    scores = [
        span_scores([Place(*passage) for passage in passages], [Place(corpus, *each) for each in references])
        for corpus, references, passages in answers(CHROMA)
    ]
    assert len(scores) == 472
    assert fmean(each.precision for each in scores) == pytest.approx(0.0585045901637548)
    assert fmean(each.recall for each in scores) == pytest.approx(0.9699513777603196)
    assert fmean(each.iou for each in scores) == pytest.approx(0.05818795393428544)
    assert (scores[0].precision, scores[100].precision, scores[471].iou) == pytest.approx(
        (0.052444444444444446, 0.034, 0.17155555555555554)
    )
