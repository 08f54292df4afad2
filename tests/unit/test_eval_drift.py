"""Alarms of scheduled runs: values by hand, and CUSUM as the textbook prints it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from eval.drift import Past, checks_of, cusum
from eval.golden import GoldenSet
from eval.pair import Side
from store.runs import StoredRun
from store.schedules import Check

DROP = {"nDCG@10": 0.01}
NIL, NOW = UUID(int=0), datetime.now(UTC)


def run(*values: float, forbidden: int = 0, degraded: Mapping[str, int] | None = None) -> Side:
    """A run with these values of its questions."""
    summary: dict[str, Any] = {
        "measures": {"nDCG@10": sum(values) / len(values)}, "forbidden": {"count": forbidden},
        "degraded": dict(degraded or {}),
    }  # fmt: skip
    kept = StoredRun(NIL, "main", NIL, NIL, {"golden": "set@1"}, "", summary, NOW, NOW)
    measured = {f"q{n}": {"nDCG@10": value} for n, value in enumerate(values)}
    return Side(kept, GoldenSet("set", "", ()), measured, {})


def measure(checks: tuple[Check, ...]) -> Check:
    return next(check for check in checks if check.name == "nDCG@10")


def test_cusum_is_that_of_the_textbook() -> None:
    # Montgomery, Introduction to Statistical Quality Control, the lower one-sided CUSUM of its example: mean 10, K 0.5
    data = [9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20]
    printed = [0.05, 1.56, 1.77, 0, 0, 0, 1.46, 0, 0.30]
    assert [cusum(data[: n + 1], 10, 0.5) for n in range(len(data))] == pytest.approx(printed)
    assert cusum([], 10, 0.5) == 0


def test_a_forbidden_document_is_always_an_alarm() -> None:
    (forbidden, *_) = checks_of(run(*[1.0] * 20, forbidden=1), Past(None, ()), DROP)
    assert (forbidden.name, forbidden.value, forbidden.alarm) == ("forbidden", 1, True)
    assert not any(check.alarm for check in checks_of(run(*[1.0] * 20), Past(None, ()), DROP))


def test_a_loss_beyond_chance_against_the_baseline() -> None:
    before, worse = run(*[1.0] * 20), run(*[1.0] * 8, *[0.5] * 12)
    assert measure(checks_of(worse, Past(before, ()), DROP)).alarm
    assert "nDCG@10 changed by -0.3000" in measure(checks_of(worse, Past(before, ()), DROP)).told
    chance = run(*[1.0] * 19, 0.7)  # a mean that is 0.015 lower, by one question: the gate lets it through
    assert not measure(checks_of(chance, Past(before, ()), DROP)).alarm


def test_small_losses_of_many_runs_add_up() -> None:
    # a mean 0.01 below the first, 0.005 of it beyond the slack, passes 0.02 with the fifth such run
    means = [{"nDCG@10": 0.9}] + [{"nDCG@10": 0.89}] * 3
    now = run(*[0.89] * 20)
    assert not measure(checks_of(now, Past(None, means), DROP)).alarm
    assert measure(checks_of(now, Past(None, [*means, {"nDCG@10": 0.889}]), DROP)).alarm
    half = [{"nDCG@10": 0.9}] + [{"nDCG@10": 0.895}] * 29  # within the slack: for ever
    assert not measure(checks_of(run(*[0.895] * 20), Past(None, half), DROP)).alarm
    recovered = measure(checks_of(run(*[0.9] * 20), Past(None, [*means, {"nDCG@10": 0.8}]), DROP))
    assert not recovered.alarm  # what is as good again is no alarm, whatever was


def test_what_cannot_be_compared_is_an_alarm() -> None:
    lost = checks_of(run(1.0, degraded={"late": 1}), Past(None, ()), DROP)
    assert [(check.name, check.alarm) for check in lost] == [("forbidden", False), ("degraded", True)]
    gone = checks_of(run(*[1.0] * 20), Past(None, (), "there is no run main"), DROP)
    assert [(check.name, check.alarm) for check in gone] == [
        ("forbidden", False),
        ("baseline", True),
        ("nDCG@10", False),
    ]
    few = measure(checks_of(run(1.0), Past(run(1.0), ()), DROP))
    assert few.alarm and "too few" in few.told
    renamed = replace(
        run(1.0), run=replace(run(1.0).run, summary={"measures": {}, "forbidden": {"count": 0}, "degraded": {}})
    )
    assert measure(checks_of(renamed, Past(None, ()), DROP)).alarm
