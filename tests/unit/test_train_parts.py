"""Two parts of a golden set that do not meet."""

import random

from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.parts import divide


def drawn(count: int, documents: int, seed: int = 0) -> GoldenSet:
    chance = random.Random(seed)
    return GoldenSet("drawn", "", tuple(
        GoldenQuery(f"q{n}", f"question {n}", "user:ana",
                    tuple(Judgement(f"d{d}") for d in chance.sample(range(documents), chance.randint(1, 3))))
        for n in range(count)
    ))  # fmt: skip


def documents(of: GoldenSet) -> set[str]:
    return {name for query in of.queries for name in query.gains()}


def test_the_parts_share_no_relevant_document_and_no_words() -> None:
    golden = drawn(400, 900)
    parts = divide(golden, 0.3)
    assert not documents(parts.training) & documents(parts.held_out)
    assert len(parts.training.queries) + len(parts.held_out.queries) + parts.left_out == 400
    assert 80 < len(parts.held_out.queries) < 160 and len(parts.training.queries) > 120 and parts.left_out > 0
    twice = GoldenSet("twice", "", tuple(
        GoldenQuery(f"q{n}", " One  question" if n % 2 else "one question", "user:ana", (Judgement(f"d{n}"),))
        for n in range(40)
    ))  # fmt: skip
    assert divide(twice, 0.3).training.queries == ()  # the same words on either side


def test_parts_stay_when_the_set_grows_and_differ_by_salt() -> None:
    small, large = drawn(100, 10_000), drawn(300, 10_000)
    assert large.queries[:100] == small.queries
    held = {q.id for q in divide(large, 0.3).held_out.queries}
    assert {q.id for q in divide(small, 0.3).held_out.queries} == {f"q{n}" for n in range(100)} & held
    inner = divide(divide(large, 0.3).training, 0.25, "choosing ")
    assert 20 < len(inner.held_out.queries) < 90


def test_a_question_that_judges_nothing_relevant_is_in_no_part() -> None:
    golden = GoldenSet("one", "", (GoldenQuery("q", "x", "user:ana", (Judgement("d", 0),), ("secret",)),))
    parts = divide(golden, 0.5)
    assert parts.training.queries == parts.held_out.queries == () and parts.left_out == 0
