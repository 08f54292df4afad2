"""Could it be chance? Paired randomisation tests, Holm's correction, and what a set of this size can tell at all.

Smucker, Allan and Carterette, CIKM 2007, compare the tests for retrieval; Holm, Scand. J. Statistics 1979.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from eval.bootstrap import BLOCK, SEED

DRAWS = 10_000
NORMAL = NormalDist()


def randomisation_p(differences: Sequence[float], draws: int = DRAWS) -> float:
    """Two-sided: how often chance alone, which swaps the two systems at each question, gives a mean as far from 0.

    The observed order counts as one of the draws, so it is never 0.
    """
    values = np.asarray(differences, np.float64)
    values = values[values != 0]  # swapping equals changes nothing
    if not values.size:
        return 1.0
    observed, chance, extreme = abs(values.sum()), np.random.default_rng(SEED), 0
    for start in range(0, draws, BLOCK):
        signs = chance.integers(0, 2, (min(BLOCK, draws - start), values.size)) * 2 - 1
        extreme += int((np.abs(signs @ values) >= observed - 1e-12).sum())
    return (1 + extreme) / (1 + draws)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: where one is at most α, the chance of any false finding among them all is at most α."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def detectable(deviation: float, questions: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least true difference that a two-sided paired test finds with this power (normal approximation).

    `deviation` is the standard deviation of the differences by question.
    """
    if questions < 2:
        return math.inf
    return (NORMAL.inv_cdf(1 - alpha / 2) + NORMAL.inv_cdf(power)) * deviation / math.sqrt(questions)


def student_quantile(share: float, freedom: int) -> float:
    """Student's t by Fisher's expansion (Abramowitz and Stegun 26.7.5); within 0.002 from 10 degrees of freedom on."""
    z, v = NORMAL.inv_cdf(share), float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
