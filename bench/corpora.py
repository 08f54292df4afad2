"""Vectors to measure with: synthetic clusters, and chunks of real text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.real_chunks import real_vectors
from bench.world import unit_vectors

CLUSTER, NOISE, DIMENSIONS = 100, 0.7, 384

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Unit vectors, where each stands by content (ranks that neighbours share), and questions."""

    name: str
    vectors: Matrix
    place: npt.NDArray[np.int64]
    questions: Matrix


def synthetic(rows: int) -> Corpus:
    """Clusters around random unit vectors, and questions that are further members of them."""
    chance = np.random.default_rng(1)
    centers = unit_vectors(max(2, rows // CLUSTER), DIMENSIONS, 2)

    def members(of: npt.NDArray[np.int64]) -> Matrix:
        found = centers[of] + chance.standard_normal((len(of), DIMENSIONS), np.float32) * (NOISE / DIMENSIONS**0.5)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    place = chance.integers(0, len(centers), rows)
    return Corpus("synthetic", members(place), place, members(chance.integers(0, len(centers), 2000)))


def real(cache: Path, cap: int) -> Corpus | None:
    """Real chunks, placed by the nearest of 256 of them, which are put in the order of their first component."""
    found = real_vectors(cache, cap)
    if found is None:
        return None
    heads = found.chunks[:256]
    first = np.linalg.svd(heads - heads.mean(axis=0), full_matrices=False)[2][0]
    rank = np.argsort(np.argsort(heads @ first))
    place = np.concatenate([rank[np.argmax(part @ heads.T, axis=1)] for part in np.array_split(found.chunks, 50)])
    return Corpus("real", found.chunks, place, found.questions)
