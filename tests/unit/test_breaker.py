"""The circuit breaker, and the kept vectors of questions behind one."""

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from core.errors import Invalid, Resting
from core.records import AccessScope
from models.fake_embedder import FakeEmbedder
from retrieval.breaker import Breaker
from retrieval.questions import Questions

ANA, BEN, ABROAD = (
    AccessScope(UUID(int=n), who, (), 1) for n, who in ((1, "user:ana"), (1, "user:ben"), (2, "user:ana"))
)


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Counting(FakeEmbedder):
    """Counts the texts it is asked for, and fails when told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    def embed_queries(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        if self.broken:
            raise OSError("no model")
        return super().embed_queries(texts)


def call(breaker: Breaker, error: Exception | None = None) -> None:
    """One call through the breaker."""
    with breaker.guarding():
        if error:
            raise error


def fail(breaker: Breaker, times: int) -> None:
    """So many failures, each of which reached the dependency."""
    for _ in range(times):
        with pytest.raises(OSError, match="away"):
            call(breaker, OSError("away"))


def test_it_opens_after_failures_in_a_row_and_tries_one_call_after_a_rest() -> None:
    clock = Clock()
    breaker = Breaker("it", failures=3, rest_s=5, clock=clock)
    fail(breaker, 2)
    call(breaker)  # a success in between: the count starts anew
    fail(breaker, 3)
    for clock.now in (100.0, 104.9):
        with pytest.raises(Resting):
            call(breaker)
    clock.now = 105.0
    with breaker.guarding(), pytest.raises(Resting):  # while one tries, the others rest on
        call(breaker)
    call(breaker)
    fail(breaker, 2)
    call(breaker)


def test_a_trial_that_fails_begins_another_rest() -> None:
    clock = Clock()
    breaker = Breaker("it", failures=2, rest_s=5, clock=clock)
    fail(breaker, 2)
    clock.now = 106.0
    fail(breaker, 1)
    with pytest.raises(Resting):
        call(breaker)
    clock.now = 111.5
    call(breaker)
    call(breaker)


def test_a_slow_answer_is_a_failure_and_the_requests_own_fault_is_none() -> None:
    clock = Clock()
    breaker = Breaker("it", failures=2, slow_s=1, clock=clock)
    for _ in range(2):
        with breaker.guarding():
            clock.now += 1.5
    with pytest.raises(Resting):
        call(breaker)
    other = Breaker("it", failures=1)
    for _ in range(3):
        with pytest.raises(Invalid):
            call(other, Invalid("a bad question"))


def test_a_question_is_embedded_once() -> None:
    embedder, questions = Counting(), Questions(kept=3)
    first = questions.vectors(embedder, ANA, ["a lamp", "a desk", "a lamp"])
    again = questions.vectors(embedder, ANA, ["a desk", "a chair"])
    assert embedder.asked == ["a lamp", "a desk", "a chair"]
    expected = FakeEmbedder().embed_queries(["a lamp", "a desk", "a lamp", "a chair"])
    np.testing.assert_array_equal(np.stack([*first, again[1]]), expected)
    np.testing.assert_array_equal(again[0], expected[1])
    questions.vectors(embedder, ANA, ["a bed"])  # the one used longest ago gives way
    questions.vectors(embedder, ANA, ["a desk", "a lamp"])
    assert embedder.asked[3:] == ["a bed", "a lamp"]


def test_a_model_that_keeps_failing_is_left_alone() -> None:
    embedder = Counting()
    questions = Questions(breaker=Breaker("it", failures=2, rest_s=60))
    questions.vectors(embedder, ANA, ["kept"])
    embedder.broken = True
    for _ in range(2):
        with pytest.raises(OSError, match="no model"):
            questions.vectors(embedder, ANA, ["new"])
    with pytest.raises(Resting):
        questions.vectors(embedder, ANA, ["new"])
    assert embedder.asked == ["kept", "new", "new"]
    assert len(questions.vectors(embedder, ANA, ["kept"])) == 1  # what is kept needs no model


def test_another_model_of_another_precision_shares_nothing() -> None:
    one, other = Counting(), Counting()
    other.precision = "bf16"
    questions = Questions()
    questions.vectors(one, ANA, ["a lamp"])
    questions.vectors(other, ANA, ["a lamp"])
    assert one.asked == other.asked == ["a lamp"]


def test_nobody_is_helped_by_what_somebody_else_asked() -> None:
    """Otherwise an answer while the model is away would tell that somebody asked the same."""
    embedder, questions = Counting(), Questions()
    for asker in (ANA, BEN, ABROAD, ANA):
        questions.vectors(embedder, asker, ["the merger"])
    assert embedder.asked == ["the merger"] * 3


def test_what_was_begun_is_made_once_for_all_who_need_it() -> None:
    """Also a question too long to be kept, for as long as the search that began it goes on."""
    embedder, questions, waiting = Counting(), Questions(), list[Any]()

    def submit(call: Any, *arguments: Any) -> Future[Any]:
        waiting.append(partial(call, *arguments))
        return Future()

    texts = ["a lamp", "a desk " * 200]
    held = questions.begin(submit, embedder, ANA, texts)
    assert embedder.asked == [] and len(waiting) == 1
    assert [each.done() for each in questions.begin(submit, embedder, ANA, texts)] == [False, False]
    questions.begin(submit, embedder, BEN, ["a lamp"])
    assert len(waiting) == 2  # Ben's own, nothing more of Ana's
    with ThreadPoolExecutor(1) as other:
        needed = other.submit(questions.vectors, embedder, ANA, texts)
        waiting[0]()
        np.testing.assert_array_equal(needed.result(timeout=5), FakeEmbedder().embed_queries(texts))
    questions.tokens(embedder, ANA, texts[1])
    assert embedder.asked == texts
    del held
    waiting.clear()
    questions.vectors(embedder, ANA, texts)
    assert embedder.asked == [*texts, texts[1]]


def test_nobody_waits_for_what_was_begun_and_given_up_or_has_failed() -> None:
    embedder, questions = Counting(), Questions()
    call = Future[Any]()
    held = questions.begin(lambda *arguments: call, embedder, ANA, ["a lamp"])
    call.cancel()
    with pytest.raises(CancelledError):
        questions.vectors(embedder, ANA, ["a lamp"])
    del held
    embedder.broken = True
    with ThreadPoolExecutor(1) as other:
        begun = questions.begin(other.submit, embedder, ANA, ["a desk"])
    with pytest.raises(OSError, match="no model"):
        begun[0].result(timeout=5)
    embedder.broken = False
    assert len(questions.vectors(embedder, ANA, ["a desk"])) == 1
