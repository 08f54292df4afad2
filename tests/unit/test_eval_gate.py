"""The gate: which differences fail, how often by chance, and what it says of its own power."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from core.errors import Invalid
from eval.gate import ALPHA, Limits, caught, gate, parse_limits, share_failed, to_junit, upper_bounds

MAIN = "nDCG@10"
LIMITS = Limits({MAIN: 0.01})


def values(numbers: Sequence[float]) -> dict[str, dict[str, float]]:
    return {f"q{n}": {MAIN: float(value)} for n, value in enumerate(numbers)}


def verdict(differences: Sequence[float], limits: Limits = LIMITS, forbidden: int = 0) -> list[bool]:
    before = np.full(len(differences), 0.5)
    found = gate(values(before), values(before + np.array(differences)), forbidden, limits)
    return [check.passed for check in found.checks]


def noise(mean: float, deviation: float = 0.1, questions: int = 300) -> np.ndarray:
    """Of exactly this mean and deviation."""
    drawn = np.random.default_rng(7).normal(0, 1, questions)
    return (drawn - drawn.mean()) * (deviation / drawn.std(ddof=1)) + mean


def test_a_clear_loss_fails_and_neither_a_gain_nor_no_change_does() -> None:
    assert verdict(noise(-0.05)) == [False, True]
    assert verdict(noise(0.05)) == [True, True]
    assert verdict([0.0] * 300) == [True, True]
    same, _ = gate(values([0.5] * 300), values([0.5] * 300), 0, LIMITS).checks
    assert same.passed and same.power is None  # no variation tells nothing of what would be caught


def test_a_loss_within_what_is_allowed_passes_however_sure_it_is() -> None:
    assert verdict([-0.009] * 300) == [True, True]
    assert verdict([-0.011] * 300) == [False, True]


def test_a_loss_that_may_be_chance_passes() -> None:
    assert verdict(noise(-0.02, 0.3, 50)) == [True, True]


def test_where_it_must_be_proven_doubt_fails() -> None:
    """An error of 0.1/√300: a change of 0 is sure to lie above -1.76 of them, and one of -0.03 above -0.0402."""
    proven = Limits({MAIN: 0.03}, proven=True)
    error = 0.1 / math.sqrt(300)
    assert verdict(noise(0.0), proven) == verdict(noise(-0.03 + 1.77 * error), proven) == [True, True]
    assert verdict(noise(-0.03 + 1.74 * error), proven) == verdict(noise(-0.03), proven) == [False, True]
    assert verdict(noise(0.0, 0.3, 50), proven) == [False, True]  # where a loss has to be shown, it passes
    low = stats.t.interval(1 - 2 * ALPHA, 299, -0.01, error)[0]
    (told, _) = gate(values(np.full(300, 0.5)), values(0.5 + noise(-0.01)), 0, proven).checks
    assert told.bound == pytest.approx(low, abs=1e-4)


def test_forbidden_documents_fail_whatever_else() -> None:
    assert verdict(noise(0.05), forbidden=1) == [True, False]
    assert verdict(noise(0.05), Limits({MAIN: 0.01}, 1), forbidden=1) == [True, True]
    assert verdict(noise(0.05), Limits({MAIN: 0.01}, None), forbidden=9) == [True]


def test_the_interval_is_students() -> None:
    sample = noise(-0.01, 0.1, 40)
    expected = sample.mean() + stats.t.ppf(1 - ALPHA, 39) * sample.std(ddof=1) / math.sqrt(40)
    assert upper_bounds(sample[None, :])[0] == pytest.approx(expected, abs=1e-4)


def test_the_promise_on_300_questions_of_the_widest_deviation() -> None:
    """Normal differences of 0.15: the error is 0.15/√300 and the gate's threshold 1.75 of them."""
    neutral = noise(0, 0.15)
    assert share_failed(neutral - 0.03, 0.01, resamples=4000) >= 0.95
    for swapped in (False, True):
        assert share_failed(neutral, 0.01, resamples=4000, swapped=swapped) <= 0.05


def test_what_it_says_it_catches_it_catches() -> None:
    neutral = noise(0, 0.12)
    least = caught(0.12, 300, 0.01)
    assert share_failed(neutral - least, 0.01, resamples=4000) == pytest.approx(0.95, abs=0.012)


def test_power_is_told_of_the_set_at_hand() -> None:
    (narrow, _), (wide, _) = (
        gate(values(np.full(300, 0.5)), values(0.5 + noise(0.0, deviation)), 0, LIMITS).checks
        for deviation in (0.05, 0.4)
    )
    assert narrow.power == 1.0 and wide.power is not None and wide.power < 0.5
    assert narrow.caught is not None and wide.caught is not None and narrow.caught < 0.03 < wide.caught


def test_several_measures_share_the_false_alarms() -> None:
    drop = noise(-0.0115, 0.1)  # 1.99 errors below 0: beyond 1.76, the threshold of one measure, and not beyond 2.06
    both = {query: {MAIN: of[MAIN], "R@10": of[MAIN]} for query, of in values(0.5 + drop).items()}
    before = {query: {MAIN: 0.5, "R@10": 0.5} for query in both}
    assert not gate(before, both, 0, LIMITS).passed
    assert gate(before, both, 0, Limits({MAIN: 0.01, "R@10": 0.01})).passed


def test_other_questions_missing_measures_and_tiny_sets_are_told() -> None:
    with pytest.raises(Invalid, match="do not measure the same questions"):
        gate(values([0.5] * 12), values([0.5] * 13), 0, LIMITS)
    with pytest.raises(Invalid, match="--measures AP@5"):
        gate(values([0.5] * 12), values([0.5] * 12), 0, Limits({"AP@5": 0.01}))
    with pytest.raises(Invalid, match="too few"):
        gate(values([0.5] * 9), values([0.5] * 9), 0, LIMITS)


@pytest.mark.parametrize("written", ["nDCG@10", "nDCG@10=much", "=0.1", "nDCG@10=-1", "nDCG@10=nan", "nDCG@10=1"])
def test_a_limit_that_says_nothing_is_refused(written: str) -> None:
    with pytest.raises(Invalid, match="nDCG@10=0.01"):
        parse_limits([written], 0)


def test_limits_as_written() -> None:
    assert parse_limits(["nDCG@10=0.01", "R@5=0"], None) == Limits({"nDCG@10": 0.01, "R@5": 0.0}, None)


def test_junit_has_a_case_a_limit_and_a_message_where_it_fails() -> None:
    found = gate(values([0.5] * 20), values([0.3] * 20), 2, LIMITS)
    suite = ElementTree.fromstring(to_junit(found, 'ma"in', "<candidate>"))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite] == [MAIN, "forbidden"]
    assert [case.get("classname") for case in suite][0] == '<candidate> against ma"in'
    assert "at most 0 allowed" in str(suite[1].find("failure").get("message"))  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [0.02, 0.1, 0.4])
def test_the_promise_holds_for_losses_that_few_questions_carry(shape: float) -> None:
    """Most questions stay as they are, some fall far and fewer rise: as differences of real runs look."""
    moved = np.zeros(300)
    losers = int(300 * shape)
    moved[:losers], moved[losers : losers + losers // 3] = -1.0, 0.6
    sparse = (moved - moved.mean()) * (0.12 / moved.std(ddof=1))
    assert share_failed(sparse - 0.03, 0.01, resamples=4000) >= 0.95
    assert share_failed(sparse, 0.01, resamples=4000, swapped=True) <= 0.05
