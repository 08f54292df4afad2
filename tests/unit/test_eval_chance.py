"""Tests of chance against exact enumeration, published worked examples and scipy."""

from itertools import product
from statistics import NormalDist, fmean

import numpy as np
import pytest
from scipy import stats

from eval.bootstrap import estimate, estimates
from eval.chance import detectable, holm, randomisation_p, student_quantile


@pytest.mark.parametrize("values", [[0.3, 0.1, -0.2, 0.4, 0.5], [0.1] * 6, [-0.3, 0.2, 0.1, -0.1, 0.05, 0.7, 0.0]])
def test_a_randomisation_test_is_the_share_of_all_sign_changes(values: list[float]) -> None:
    means = [
        abs(fmean(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=len(values))
    ]
    exact = fmean(mean >= abs(fmean(values)) - 1e-12 for mean in means)
    assert randomisation_p(values) == pytest.approx(exact, abs=0.015)


def test_no_difference_is_no_finding_and_the_least_p_is_not_zero() -> None:
    assert randomisation_p([0.0] * 20) == 1.0
    assert randomisation_p([0.5] * 40) == 1 / 10_001


def test_holm_by_its_definition() -> None:
    # 4 · 0.005, 3 · 0.01, then the larger of 2 · 0.03 and 0.04, in the order of the p-values
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_the_detectable_difference_is_found_with_its_power() -> None:
    least, drawn = detectable(0.2, 400), np.random.default_rng(1).normal(0, 0.2, (4000, 400))
    t = (drawn + least).mean(axis=1) / (drawn.std(axis=1, ddof=1) / 20)
    assert (t > NormalDist().inv_cdf(0.975)).mean() == pytest.approx(0.8, abs=0.02)
    assert detectable(0.2, 1) == float("inf")


@pytest.mark.parametrize("freedom", [10, 30, 100, 299])
@pytest.mark.parametrize("share", [0.9, 0.95, 0.958, 0.975, 0.99])
def test_students_quantiles(share: float, freedom: int) -> None:
    assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), abs=0.002)


def test_estimates_share_their_resamples() -> None:
    chance = np.random.default_rng(3)
    values = {"a": chance.random(50).tolist(), "b": chance.random(50).tolist()}
    for name, found in estimates(values).items():
        alone = estimate(values[name])
        assert (found.mean, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert estimates({}) == {}
