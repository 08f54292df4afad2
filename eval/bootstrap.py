"""How sure a mean over questions is: percentile bootstrap (Efron 1979; for retrieval Sakai, SIGIR 2006)."""

from collections.abc import Mapping, Sequence
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
    return estimates({"": values})[""]


def estimates(values: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Each name's estimate, over the same questions, of which there is at least one: all from the same resamples."""
    if not values:
        return {}
    columns = np.array(list(values.values()), np.float64).T
    low, high = np.percentile(resampled_means(columns), (2.5, 97.5), axis=0)
    means = columns.mean(axis=0)
    return {
        name: Estimate(*map(float, each)) for name, each in zip(values, zip(means, low, high, strict=True), strict=True)
    }


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """The mean of values minus others, paired by question: what both find hard widens no interval."""
    return estimate(np.subtract(values, others).tolist())


def resampled_means(values: npt.NDArray[np.float64], resamples: int = RESAMPLES) -> npt.NDArray[np.float64]:
    """[resamples, …] means of as many questions as there are, drawn with replacement; `values` is [questions, …]."""
    chance, questions = np.random.default_rng(SEED), len(values)
    blocks = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    return np.concatenate([_times_drawn(chance, block, questions) @ values / questions for block in blocks])


def _times_drawn(chance: np.random.Generator, resamples: int, questions: int) -> npt.NDArray[np.float64]:
    """[resamples, questions] how often each question was drawn."""
    drawn = chance.integers(0, questions, (resamples, questions)) + np.arange(resamples)[:, None] * questions
    return np.bincount(drawn.ravel(), minlength=resamples * questions).reshape(resamples, questions).astype(np.float64)
