"""BM25 over arrays, exact, with the statistics of what the caller sees and nothing else.

score(d) = sum over the question's terms of idf · f · (k1 + 1) / (f + k1 · (1 - b + b · |d| / average length)), with
Lucene's idf, log(1 + (N - df + 0.5) / (df + 0.5)) (Robertson, Zaragoza: The Probabilistic Relevance Framework, 2009).
N, df and the average length are those of the rows that are seen.

The loops are compiled by numba and hold no lock while they run (decision 0015).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numba
import numpy as np
from numpy.typing import NDArray

from core.records import Candidate
from retrieval.lexical import Bm25
from retrieval.segment import Entry, Segment, build

Places = NDArray[np.int64]  # [terms] in a segment's postings

LONG = 4096  # postings, from which on a term's count is kept with its field
COMMON = 4  # a term that more than one in so many rows hold is worth a look at what it can still change
FEW = 32  # postings for each row that is looked up: a search by halves costs about as much as so many in a row
LEAST = 5e-324  # the smallest number above 0
SURE = 1 - 1e-9  # rounding, of sums in another order


@dataclass(frozen=True, slots=True)
class Seen:
    """The rows of a segment that a caller sees."""

    segment: Segment
    rows: NDArray[np.bool_]  # [n]
    count: int
    length: int  # sum over these rows


@dataclass(frozen=True, slots=True)
class Field:
    """All that a caller sees, ready to be scored in."""

    parts: tuple[Seen, ...]
    norms: tuple[NDArray[np.float64], ...]  # by part [n]: k1 · (1 - b + b · |d| / average); inf: not seen, scores 0
    count: int
    k1: float
    held: dict[int, int] = field(default_factory=dict)  # by term's hash: in how many rows, of terms that many hold


def seen(segment: Segment, documents: NDArray[np.bool_]) -> Seen:
    """What a caller sees who sees these documents [d] of the segment."""
    rows = documents[segment.document]
    return Seen(segment, rows, int(np.count_nonzero(rows)), int(segment.lengths[rows].sum(dtype=np.int64)))


def field_of(parts: Sequence[Seen], bm25: Bm25) -> Field:
    """The parts as one collection."""
    parts = [part for part in parts if part.count]
    count, length = sum(part.count for part in parts), sum(part.length for part in parts)
    if not length:  # no chunk holds a word, and the formula divides by the average length
        return Field((), (), 0, bm25.k1)
    scale = bm25.k1 * bm25.b * count / length
    norms = [np.where(part.rows, bm25.k1 * (1 - bm25.b) + scale * part.segment.lengths, np.inf) for part in parts]
    return Field(tuple(parts), tuple(norms), count, bm25.k1)


def best(field: Field, wanted: Mapping[int, int], k: int) -> list[Candidate]:
    """The k rows of the largest scores, ties by chunk id; `wanted` has the terms' hashes and how often each is asked.

    A score is summed from the heaviest term to the lightest, those of one weight as they are asked, so that it is the
    same to the bit however rows lie in segments and whatever else is in them.
    """
    if not field.parts:
        return []
    hashes = np.array(list(wanted), np.uint64)
    spans = [part.segment.spans(hashes) for part in field.parts]
    weights = _weights(field, hashes, list(wanted.values()), spans)
    order = np.argsort(-weights, kind="stable")[: np.count_nonzero(weights)]
    weights = weights[order]
    rest = np.cumsum(weights[::-1])[::-1].copy()  # what the terms from here on can add at most: f / (f + norm) < 1
    found: list[tuple[float, int]] = []
    bar = 0.0
    for part, norms, (starts, ends) in zip(field.parts, field.norms, spans, strict=True):
        segment = part.segment
        rows, scores = _ranked(segment.rows, segment.frequencies, starts[order], ends[order], weights, rest, norms,
                               segment.chunk_ids, k, bar)  # fmt: skip
        found = sorted([*found, *zip((-scores).tolist(), segment.chunk_ids[rows].tolist(), strict=True)])[:k]
        bar = -found[-1][0] if len(found) == k else 0.0
    return [Candidate(chunk_id, -score) for score, chunk_id in found]


def _weights(
    field: Field, hashes: NDArray[np.uint64], times: Sequence[int], spans: Sequence[tuple[Places, Places]]
) -> NDArray[np.float64]:
    """What each term counts at most, [terms]: times · idf · (k1 + 1), and 0 where no row that is seen holds it."""
    lengths = np.sum([ends - starts for starts, ends in spans], axis=0, dtype=np.int64)
    known = [field.held.get(each, -1) for each in hashes.tolist()]
    held = np.zeros(len(hashes), np.int64)
    unknown = np.array([n < 0 for n in known], bool)
    for part, (starts, ends) in zip(field.parts, spans, strict=True):
        if part.count == len(part.segment):
            held += np.where(unknown, ends - starts, 0)
        else:
            _count(part.segment.rows, starts, np.where(unknown, ends, starts), part.rows, held)
    for place in np.flatnonzero(unknown & (lengths > LONG)).tolist():
        field.held[int(hashes[place])] = int(held[place])
    found = [n if n >= 0 else int(df) for n, df in zip(known, held.tolist(), strict=True)]
    return np.array([n * _idf(field.count, df) * (field.k1 + 1) for n, df in zip(times, found, strict=True)], float)


def compile_loops() -> None:
    """Have the loops compiled now, 1.5 s of it, and not in the first search."""
    segment = build([Entry(1, UUID(int=1), 1, ["a"]), Entry(2, UUID(int=2), 1, ["a"])], lambda term: 1)
    best(field_of([seen(segment, np.array([True, False]))], Bm25()), {1: 1}, 1)


def _idf(count: int, df: int) -> float:
    return math.log(1 + (count - df + 0.5) / (df + 0.5)) if df else 0.0


@numba.njit(nogil=True)
def _count(
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    seen: NDArray[np.bool_],
    held: NDArray[np.int64],
) -> None:
    for term in range(len(starts)):
        found = 0
        for i in range(starts[term], ends[term]):
            found += seen[rows[i]]
        held[term] += found


@numba.njit(nogil=True)
def _ranked(
    rows: NDArray[np.int32],
    frequencies: NDArray[np.uint16],
    starts: Places,
    ends: Places,
    weights: NDArray[np.float64],
    rest: NDArray[np.float64],
    norms: NDArray[np.float64],
    ids: NDArray[np.int64],
    k: int,
    bar: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best k rows and their scores (MaxScore: Turtle, Flood, IPM 1995). Heaviest terms first; once what the others
    can add is less than the k-th best has, they are looked up for the rows alone that can still get there.
    """
    scores = np.zeros(len(norms))
    term = 0
    while term < len(starts):
        if ends[term] - starts[term] > len(norms) // COMMON and 2 * rest[term] < rest[0]:  # the k-th may have more
            bar = max(bar, _kth(scores, k))
            if rest[term] < bar * SURE:
                break
        _add(rows, frequencies, starts[term], ends[term], weights[term], norms, scores)
        term += 1
    if term == len(starts):
        best_rows = _best(scores, np.flatnonzero(scores >= max(bar * SURE, LEAST)), ids, k)
        return best_rows, scores[best_rows]
    hopeful = np.flatnonzero(scores >= bar * SURE - rest[term])
    while term < len(starts):
        if ends[term] - starts[term] > FEW * len(hopeful):
            _look_up(rows, frequencies, starts[term], ends[term], weights[term], norms, scores, hopeful)
        else:
            _add(rows, frequencies, starts[term], ends[term], weights[term], norms, scores)
        term += 1
    best_rows = _best(scores, hopeful, ids, k)
    return best_rows, scores[best_rows]


@numba.njit(nogil=True)
def _add(
    rows: NDArray[np.int32],
    frequencies: NDArray[np.uint16],
    start: int,
    end: int,
    weight: float,
    norms: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    for i in range(start, end):
        row, f = rows[i], float(frequencies[i])
        scores[row] += weight * f / (f + norms[row])


@numba.njit(nogil=True)
def _look_up(
    rows: NDArray[np.int32],
    frequencies: NDArray[np.uint16],
    start: int,
    end: int,
    weight: float,
    norms: NDArray[np.float64],
    scores: NDArray[np.float64],
    hopeful: NDArray[np.int64],
) -> None:
    """As `_add`, for these rows [ascending] alone."""
    for row in hopeful:
        high = end
        while start < high:
            middle = (start + high) // 2
            if rows[middle] < row:
                start = middle + 1
            else:
                high = middle
        if start == end:
            return
        if rows[start] == row:
            f = float(frequencies[start])
            scores[row] += weight * f / (f + norms[row])


@numba.njit(nogil=True)
def _kth(scores: NDArray[np.float64], k: int) -> float:
    """The k-th largest of the scores; 0 when fewer are positive."""
    heap = np.zeros(k)
    for score in scores:
        if score > heap[0]:
            at, below = 0, 1
            while below < k:
                if below + 1 < k and heap[below + 1] < heap[below]:
                    below += 1
                if score <= heap[below]:
                    break
                heap[at] = heap[below]
                at, below = below, 2 * below + 1
            heap[at] = score
    return float(heap[0])


@numba.njit(nogil=True)
def _best(scores: NDArray[np.float64], among: NDArray[np.int64], ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Of these rows, those of the k largest positive scores, of equal ones of the smallest ids; a heap, worst first."""
    heap = np.empty(k, np.int64)
    size = 0
    for row in among:
        if scores[row] > 0:
            if size < k:
                _sift_up(heap, size, row, scores, ids)
                size += 1
            elif _worse(heap[0], row, scores, ids):
                _sift_down(heap, row, scores, ids)
    return heap[:size]


@numba.njit(nogil=True)
def _worse(one: int, two: int, scores: NDArray[np.float64], ids: NDArray[np.int64]) -> bool:
    return bool(scores[one] < scores[two] or (scores[one] == scores[two] and ids[one] > ids[two]))


@numba.njit(nogil=True)
def _sift_up(heap: NDArray[np.int64], at: int, row: int, scores: NDArray[np.float64], ids: NDArray[np.int64]) -> None:
    while at > 0 and _worse(row, heap[(at - 1) // 2], scores, ids):
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = row


@numba.njit(nogil=True)
def _sift_down(heap: NDArray[np.int64], row: int, scores: NDArray[np.float64], ids: NDArray[np.int64]) -> None:
    at, below = 0, 1
    while below < len(heap):
        if below + 1 < len(heap) and _worse(heap[below + 1], heap[below], scores, ids):
            below += 1
        if _worse(row, heap[below], scores, ids):
            break
        heap[at] = heap[below]
        at, below = below, 2 * below + 1
    heap[at] = row
