"""How sure a mean over questions is: percentile bootstrap (Efron 1979; for retrieval Sakai, SIGIR 2006)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
SEED = 20_240_229  # fixed: the same values give the same interval
BLOCK = 1_000  # resamples drawn at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions, with the 95 % interval of its resampled means."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of the questions' values, of which there is at least one."""
    means = resampled_means(np.asarray(values, np.float64))
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(np.mean(values)), float(low), float(high))


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of values minus others, paired by question: what both find hard widens no interval."""
    return estimate(np.subtract(values, others).tolist())


def resampled_means(values: npt.NDArray[np.float64], resamples: int = RESAMPLES) -> npt.NDArray[np.float64]:
    """[resamples] means of as many questions as there are, drawn with replacement."""
    chance = np.random.default_rng(SEED)
    blocks = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    drawn = [values[chance.integers(0, len(values), (block, len(values)))].mean(axis=1) for block in blocks]
    return np.concatenate(drawn)
