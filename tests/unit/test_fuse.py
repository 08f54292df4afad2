"""Fusion against its formulas: TOIS 2023 (convex combination, scaled scores) and SIGIR 2009 (reciprocal ranks)."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import Candidate, Fusion
from retrieval.fuse import convex, fuse, rrf

scores = st.integers(-1000, 1000).map(lambda n: n / 8)  # exact in binary, so that the formula can be in fractions
legs = st.dictionaries(st.integers(1, 30), scores, max_size=12).map(
    lambda found: [Candidate(chunk_id, score) for chunk_id, score in found.items()]
)
positive = st.integers(1, 1000).map(lambda n: n / 8)  # BM25 has no others
lexical_legs = st.dictionaries(st.integers(1, 30), positive, max_size=12).map(
    lambda found: [Candidate(chunk_id, score) for chunk_id, score in found.items()]
)


def scaled(leg: list[Candidate], chunk_id: int, low: Fraction | None = None) -> Fraction:
    """(s - low) / (max - low), low being the leg's least score unless given; 0 for what the leg does not propose, 1
    where it tells none apart."""
    given_scores = {c.chunk_id: Fraction(c.score) for c in leg}
    if chunk_id not in given_scores:
        return Fraction(0)
    low, high = min(given_scores.values()) if low is None else low, max(given_scores.values())
    return (given_scores[chunk_id] - low) / (high - low) if high > low else Fraction(1)


def reciprocal(leg: list[Candidate], chunk_id: int) -> Fraction:
    """1 / (60 + rank), the first rank being 1; 0 for what the leg does not propose."""
    ordered = sorted(leg, key=lambda c: (-c.score, c.chunk_id))
    ranks = {c.chunk_id: rank for rank, c in enumerate(ordered, start=1)}
    return Fraction(1, 60 + ranks[chunk_id]) if chunk_id in ranks else Fraction(0)


@given(legs, lexical_legs, st.sampled_from((0.0, 0.25, 0.5, 1.0)))
def test_convex_is_the_formula(dense: list[Candidate], lexical: list[Candidate], weight: float) -> None:
    share = Fraction(weight) if dense and lexical else Fraction(int(bool(dense)))  # the only leg has all of it
    fused = convex(dense, lexical, weight)
    assert {c.chunk_id for c in fused} == {c.chunk_id for c in (*dense, *lexical)}
    for candidate in fused:
        i = candidate.chunk_id
        expected = share * scaled(dense, i) + (1 - share) * scaled(lexical, i, Fraction(0))
        assert candidate.fused == pytest.approx(float(expected), abs=1e-12)
        assert 0 <= candidate.fused <= 1


@given(legs, legs)
def test_rrf_is_the_formula(dense: list[Candidate], lexical: list[Candidate]) -> None:
    for candidate in rrf(dense, lexical):
        expected = reciprocal(dense, candidate.chunk_id) + reciprocal(lexical, candidate.chunk_id)
        assert candidate.fused == pytest.approx(float(expected), abs=1e-15)


def test_the_second_of_two_chunks_with_a_code_is_above_what_only_looks_alike() -> None:
    """Two chunks hold `ERR-4012`, one of them in a longer text: near the least of ten neighbours, 0.9 of the best."""
    dense = [Candidate(i, 1 - i / 10) for i in range(10)]
    lexical = [Candidate(20, 10.0), Candidate(21, 9.0)]
    assert [c.chunk_id for c in convex(dense, lexical, 0.5)][:3] == [0, 20, 21]


def test_the_named_fusion_is_taken() -> None:
    dense, lexical = [Candidate(1, 0.9), Candidate(2, 0.1)], [Candidate(2, 5.0), Candidate(3, 4.0)]
    assert fuse(Fusion("convex", 0.7), dense, lexical) == convex(dense, lexical, 0.7)
    assert fuse(Fusion("rrf", 0.7), dense, lexical) == rrf(dense, lexical)


@given(legs, lexical_legs)
def test_best_first_and_ties_by_id(dense: list[Candidate], lexical: list[Candidate]) -> None:
    for fused in (convex(dense, lexical), rrf(dense, lexical)):
        assert fused == sorted(fused, key=lambda c: (-c.fused, c.chunk_id))


@given(legs, lexical_legs)
def test_each_leg_keeps_its_own_score(dense: list[Candidate], lexical: list[Candidate]) -> None:
    by_dense, by_lexical = ({c.chunk_id: c.score for c in leg} for leg in (dense, lexical))
    for fused in (convex(dense, lexical), rrf(dense, lexical)):
        assert {c.chunk_id: c.dense for c in fused if c.dense is not None} == by_dense
        assert {c.chunk_id: c.lexical for c in fused if c.lexical is not None} == by_lexical


@given(legs, lexical_legs, st.sampled_from((0.5, 2.0, 1024.0)), st.integers(-64, 64))
def test_convex_does_not_see_a_legs_unit(
    dense: list[Candidate], lexical: list[Candidate], scale: float, shift: int
) -> None:
    """Cosine or dot product, bits or nats: a positive affine change of the dense scores, a scale of the lexical."""
    moved = [Candidate(c.chunk_id, c.score * scale + shift) for c in dense]
    scaled_up = [Candidate(c.chunk_id, c.score * scale) for c in lexical]
    before, after = convex(dense, lexical), convex(moved, scaled_up)
    assert {c.chunk_id: c.fused for c in after} == pytest.approx({c.chunk_id: c.fused for c in before}, abs=1e-12)


@given(legs)
def test_the_order_of_the_candidates_does_not_matter(leg: list[Candidate]) -> None:
    assert convex(leg, []) == convex(leg[::-1], [])
    assert rrf(leg, leg) == rrf(leg[::-1], leg)


def test_agreement_beats_one_legs_favourite() -> None:
    """Worked by hand: 2 is second in both legs, 1 and 3 are first in one and absent from the other."""
    dense = [Candidate(1, 1.0), Candidate(2, 0.9), Candidate(4, 0.0)]
    lexical = [Candidate(3, 10.0), Candidate(2, 9.0), Candidate(5, 0.0)]
    assert [(c.chunk_id, round(c.fused, 6)) for c in convex(dense, lexical, 0.5)] == [
        (2, 0.9), (1, 0.5), (3, 0.5), (4, 0.0), (5, 0.0),
    ]  # fmt: skip
    best = rrf(dense, lexical)[0]
    assert best.chunk_id == 2 and best.fused == pytest.approx(2 / 62)
