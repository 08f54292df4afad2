"""A tenant's vectors in memory, and an exact scan of the visible ones.

A component is a whole number of 16 bits under its row's scale, kept as two bytes. A scan sums over the high ones alone,
which is half to read, and tells by how much the low ones could move each score (Cauchy-Schwarz): what cannot reach the
k best is left there, and the few others are scored in full. So what is found is what scoring every visible row in full
would find, whatever lies beside it, and the sums are exact: the same to the bit in any order.

The loops are compiled by numba and hold no lock while they run.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from core.records import Candidate

LARGEST = 127 * 256 + 127  # of a component: its high byte goes no further
ROUNDING, TINY = 1 + 1e-6, 1e-12  # upwards, of what must not be too small
BATCH = 20_000  # rows that are made into bytes at a time
BLOCK = 512  # rows that are looked at together
DENSE = 4  # where one in so many of a block is seen, reading on is faster than stepping over the others
SPLIT = 50_000  # rows that are worth a thread of their own: 0.8 ms

Result = TypeVar("Result")
Bytes = NDArray[np.int8]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matrix:
    """n vectors of d components: scale · (256 · high + low). A row of scale nan has no vector."""

    scales: NDArray[np.float32]  # [n]
    errors: NDArray[np.float32]  # [n] length of what the low bytes say, or a little more
    high: Bytes  # [n, d]
    low: Bytes  # [n, d]

    def __len__(self) -> int:
        return len(self.scales)

    @property
    def dimensions(self) -> int:
        """Components of a vector."""
        return int(self.high.shape[1])


@dataclass(frozen=True, slots=True)
class Place:
    """Rows to look among: those of a matrix that are seen [n], and their chunks [n]."""

    matrix: Matrix
    seen: Mask
    chunk_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Query:
    """A question's vector as the loops take it."""

    exact: NDArray[np.float64]  # [d]
    whole: NDArray[np.int16]  # [d]
    unit: float  # of a sum over whole numbers and high bytes
    length: float
    drift: float  # of a score by rounding to whole numbers, for a row of scale 1


def matrix_of(vectors: NDArray[np.floating]) -> Matrix:
    """The matrix of vectors [n, d]; a row that begins with nan has none."""
    n, d = vectors.shape
    scales, errors = np.empty(n, np.float32), np.empty(n, np.float32)
    high, low = np.empty((n, d), np.int8), np.empty((n, d), np.int8)
    for start in range(0, n, BATCH):
        part = slice(start, start + BATCH)
        rows = vectors[part].astype(np.float64)
        longest = np.abs(rows).max(axis=1)
        scales[part] = np.where(longest == 0, 1, longest / LARGEST * ROUNDING)
        whole = np.nan_to_num(np.rint(rows / scales[part, None].astype(np.float64))).astype(np.int32)
        upper = (whole + 128) >> 8
        rest = whole - (upper << 8)
        high[part], low[part] = upper, rest
        errors[part] = scales[part] * np.linalg.norm(rest, axis=1) * ROUNDING
    return Matrix(scales, errors, high, low)


def rows_of(matrix: Matrix, kept: Mask) -> Matrix:
    """The matrix with these of its rows [n] alone."""
    return Matrix(matrix.scales[kept], matrix.errors[kept], matrix.high[kept], matrix.low[kept])


def stacked(matrices: Sequence[Matrix]) -> Matrix:
    """One matrix of several of the same dimensions, one after another."""
    return Matrix(
        np.concatenate([m.scales for m in matrices]),
        np.concatenate([m.errors for m in matrices]),
        np.concatenate([m.high for m in matrices]),
        np.concatenate([m.low for m in matrices]),
    )


def packed(matrix: Matrix) -> tuple[NDArray[np.uint8], ...]:
    """The matrix as bytes, to be written one after another."""
    arrays = (matrix.scales, matrix.errors, matrix.high, matrix.low)
    return tuple(np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays)


def unpacked(content: NDArray[np.uint8], rows: int) -> Matrix:
    """The matrix of that many rows whose bytes these are; they are not copied. Raises ValueError."""
    heads, halves = content[: 8 * rows].view(np.float32), content[8 * rows :].view(np.int8)
    high, low = halves.reshape(2, rows, -1)
    return Matrix(heads[:rows], heads[rows:], high, low)


class Threads:
    """What scans share: as many threads as there are cores, each with some of the rows."""

    def __init__(self, count: int) -> None:
        self.count, self._pool = count, ThreadPoolExecutor(count, "scan")

    def all(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """The calls' results; the first is made by who asks, who would only wait."""
        others = [self._pool.submit(call) for call in calls[1:]]
        return [call() for call in calls[:1]] + [done.result() for done in others]

    def close(self) -> None:
        """End the threads when their calls are done."""
        self._pool.shutdown(wait=False)


def nearest(places: Sequence[Place], query: NDArray[np.float32], k: int, threads: Threads) -> list[Candidate]:
    """The k rows that are seen of largest inner product with `query` [d], ties by chunk id.

    The query is rounded to halves, as Postgres does it.
    """
    asked = _asked(query)
    blocks = [(place, start, end) for place in places for start, end in _blocks(place, threads.count)]
    met = threads.all([partial(_met, place, start, end, asked, k) for place, start, end in blocks])
    bars = np.concatenate([np.full(k, -np.inf), *[bars for _, _, bars in met]])
    bar = np.partition(bars, -k)[-k]
    ids, scores = [np.empty(0, np.int64)], [np.empty(0)]
    for (place, _, _), (rows, most, _) in zip(blocks, met, strict=True):
        matrix, hopeful = place.matrix, rows[most >= bar]
        ids.append(place.chunk_ids[hopeful])
        scores.append(_scored(matrix.high, matrix.low, matrix.scales, hopeful, asked.exact))
    id_of, score_of = np.concatenate(ids), np.concatenate(scores)
    best = np.lexsort((id_of, -score_of))[:k]
    return list(map(Candidate, id_of[best].tolist(), score_of[best].tolist()))


def compile_loops() -> None:
    """Have the loops compiled now, 1 s of it, and not in the first search."""
    place = Place(matrix_of(np.ones((1, 2), np.float32)), np.ones(1, bool), np.ones(1, np.int64))
    nearest([place], np.ones(2, np.float32), 1, Threads(1))


def _asked(query: NDArray[np.float32]) -> _Query:
    exact = query.astype(np.float16).astype(np.float64)
    length, most = float(np.linalg.norm(exact)), 127 * len(exact) ** 0.5  # of a row's high bytes
    scale = min(32767 / np.abs(exact).max(), 0.99 * 2**31 / (most * length)) if length else 1.0  # sums fit 32 bits
    whole = np.rint(exact * scale)
    drift = 256 * most * (float(np.linalg.norm(exact - whole / scale)) * ROUNDING + TINY * length)
    return _Query(exact, whole.astype(np.int16), 256 / scale, length * ROUNDING, drift)


def _blocks(place: Place, threads: int) -> list[tuple[int, int]]:
    """Rows from, to: as many blocks as are worth a thread each."""
    many = min(threads, max(1, int(np.count_nonzero(place.seen)) // SPLIT))
    return list(pairwise(np.linspace(0, len(place.matrix), many + 1).astype(int).tolist()))


def _met(place: Place, start: int, end: int, asked: _Query, k: int) -> tuple[Rows, Scores, Scores]:
    matrix = place.matrix
    return _hopeful(matrix.high, matrix.scales, matrix.errors, place.seen, asked.whole, asked.unit, asked.length,
                    asked.drift, start, end, k)  # fmt: skip


@numba.njit(nogil=True, inline="never")
def _sum(high: Bytes, query: NDArray[np.int16]) -> np.int32:
    """Of the products; the casts have it done in 32 bits, 32 products at a time."""
    total = np.int32(0)
    for i in range(len(query)):
        total = np.int32(total + np.int32(np.int32(high[i]) * np.int32(query[i])))
    return total


@numba.njit(nogil=True)
def _hopeful(
    high: Bytes,
    scales: NDArray[np.float32],
    errors: NDArray[np.float32],
    seen: Mask,
    query: NDArray[np.int16],
    unit: float,
    length: float,
    drift: float,
    start: int,
    end: int,
    k: int,
) -> tuple[Rows, Scores, Scores]:
    """Rows that may be among the k best, what each can score at most, and the k largest of what any scores at least."""
    least = np.full(k, -np.inf)  # a heap
    rows, most, count = np.empty(end - start, np.int64), np.empty(end - start), 0
    wanted, sums = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int32)
    for first in range(start, end, BLOCK):
        last, here = min(end, first + BLOCK), 0
        for row in range(first, last):
            wanted[here] = row
            here += seen[row]
        if here * DENSE >= BLOCK:
            for row in range(first, last):
                sums[row - first] = _sum(high[row], query)
        else:
            for at in range(here):
                sums[wanted[at] - first] = _sum(high[wanted[at]], query)
        for at in range(here):
            row = wanted[at]
            score = float(sums[row - first]) * scales[row] * unit
            error = float(errors[row]) * length + float(scales[row]) * drift
            if score + error >= least[0]:
                rows[count], most[count] = row, score + error
                count += 1
                if score - error > least[0]:
                    _replace_least(least, score - error)
    return rows[:count], most[:count], least


@numba.njit(nogil=True)
def _replace_least(heap: Scores, value: float) -> None:
    at = 0
    while 2 * at + 1 < len(heap):
        below = 2 * at + 1
        if below + 1 < len(heap) and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= value:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = value


@numba.njit(nogil=True)
def _scored(high: Bytes, low: Bytes, scales: NDArray[np.float32], rows: Rows, query: NDArray[np.float64]) -> Scores:
    """Inner products of these rows. A half times 16 bits has 27, so that no sum of unit vectors is rounded."""
    scores = np.empty(len(rows))
    for at in range(len(rows)):
        row, total = rows[at], 0.0
        for i in range(len(query)):
            total += query[i] * float(256 * np.int32(high[row, i]) + np.int32(low[row, i]))
        scores[at] = total * scales[row]
    return scores
