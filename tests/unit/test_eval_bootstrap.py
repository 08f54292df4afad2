"""The bootstrap against distributions that are known without it."""

import math

import numpy as np
import pytest

from eval.bootstrap import difference, estimate, resampled_means


def binomial_quantile(n: int, p: float, share: float) -> int:
    """The least k with P(X <= k) >= share."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= share:
            return k
    return n


@pytest.mark.parametrize(("n", "hits"), [(20, 10), (50, 5), (300, 200)])
def test_of_ones_and_zeros_it_is_the_binomial(n: int, hits: int) -> None:
    """The sum of n draws with replacement from them is binomial with p = hits / n, whose quantiles are exact."""
    found = estimate([1.0] * hits + [0.0] * (n - hits))
    assert found.mean == pytest.approx(hits / n)
    for got, share in ((found.low, 0.025), (found.high, 0.975)):
        assert abs(got * n - binomial_quantile(n, hits / n, share)) <= 1  # 10,000 draws may miss by a step


def test_the_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(5).normal(0.5, 0.2, 400)
    means = resampled_means(values)
    assert means.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), abs=0.001)


def test_one_value_has_no_width() -> None:
    found = estimate([0.25] * 7)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_a_difference_is_paired() -> None:
    """Each question gains the same: the questions differ widely, the difference does not."""
    hard_and_easy = [0.0, 0.9, 0.1, 0.8, 0.5]
    found = difference([value + 0.0625 for value in hard_and_easy], hard_and_easy)
    assert (found.low, found.high) == pytest.approx((0.0625, 0.0625))
    assert estimate(hard_and_easy).high - estimate(hard_and_easy).low > 0.3


def test_the_same_values_give_the_same_interval() -> None:
    values = [0.0, 0.3, 0.5, 1.0]
    assert estimate(values) == estimate(values)
