"""The scan in memory finds exactly what scoring every visible row does, whatever vectors there are."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from core.records import Candidate
from retrieval import matrix as scanning
from retrieval.matrix import Matrix, Place, Threads, matrix_of, nearest, packed, rows_of, stacked, unpacked

D = 48
CHANCE = np.random.default_rng(1)
Floats = npt.NDArray[np.float64]


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(n: int) -> Floats:
    return unit(CHANCE.standard_normal((20, D))[CHANCE.integers(0, 20, n)] + 0.3 * CHANCE.standard_normal((n, D)))


def alike(n: int) -> Floats:
    """Copies, and copies that differ by less than a high byte tells."""
    return unit(np.repeat(clusters(3), n // 3 + 1, axis=0)[:n] + 1e-3 * CHANCE.standard_normal((n, D)).round(1))


def outlying(n: int) -> Floats:
    """One component is so large that the others' high bytes are all but 0."""
    rows = CHANCE.standard_normal((n, D))
    rows[:, 7] = 200
    return unit(rows)


def odd(n: int) -> Floats:
    """Zeros, tiny and long vectors between the others."""
    rows = clusters(n)
    rows[::7], rows[1::7], rows[2::7] = 0, rows[1::7] * 1e-3, rows[2::7] * 30
    return rows


KINDS = {"clusters": clusters, "alike": alike, "outlying": outlying, "odd": odd}


def of_bytes(matrix: Matrix) -> Floats:
    """The vectors that the matrix stands for."""
    return matrix.scales[:, None] * (256.0 * matrix.high + matrix.low)


def exactly(matrix: Matrix, seen: npt.NDArray[np.bool_], query: npt.NDArray[np.float32], k: int) -> list[int]:
    """By scoring every row in whole numbers, without rounding: the scale is the same for the row's whole sum."""
    whole = 256 * matrix.high.astype(object) + matrix.low
    scores = (whole @ [int(q * 2**24) for q in query.astype(np.float16).astype(float)]).astype(float) * matrix.scales
    rows = np.flatnonzero(seen)
    return [int(row) for row in rows[np.lexsort((rows, -scores[rows]))][:k]]


def ids(found: list[Candidate]) -> list[int]:
    return [candidate.chunk_id for candidate in found]


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    opened = Threads(2)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_exact_for_any_vectors_and_any_sight(
    kind: str, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "SPLIT", 300)
    vectors = KINDS[kind](1500)
    matrix, chunks = matrix_of(vectors.astype(np.float16)), np.arange(1500)
    spiky = np.eye(D, dtype=np.float32)[:2]
    queries = [
        *unit(vectors[:3] + 0.1 * CHANCE.standard_normal((3, D))).astype(np.float32),
        *spiky,
        40 * spiky[0],
        0 * spiky[0],
    ]
    for share in (1.0, 0.5, 0.1, 0.01, 0.0):
        seen = CHANCE.random(1500) < share
        for query in queries:
            found = nearest([Place(matrix, seen, chunks)], query, 20, threads)
            assert ids(found) == exactly(matrix, seen, query, 20)
            assert len(found) == min(20, seen.sum())
            scores = of_bytes(matrix)[ids(found)] @ query.astype(np.float16).astype(float)
            assert [c.score for c in found] == pytest.approx(scores.tolist(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_component_is_off_by_half_a_step_at_most(kind: str) -> None:
    vectors = KINDS[kind](200).astype(np.float16).astype(float)
    off = np.abs(of_bytes(matrix_of(vectors)) - vectors).max(axis=1)
    assert (off <= 0.501 * np.abs(vectors).max(axis=1) / 32639).all()


def test_parts_and_what_is_hidden_between_move_nothing(threads: Threads) -> None:
    vectors, hidden = clusters(900), clusters(2000)
    matrix, every = matrix_of(vectors), np.ones(900, bool)
    one = [Place(matrix, every, np.arange(900))]
    cuts = [slice(0, 100), slice(100, 101), slice(101, 900)]
    several = [Place(matrix_of(vectors[cut]), every[cut], np.arange(900)[cut]) for cut in cuts]
    place = np.sort(CHANCE.choice(2900, 900, replace=False))
    seen, mixed, chunks = np.zeros(2900, bool), np.empty((2900, D)), np.full(2900, -1)
    seen[place], mixed[place], chunks[place] = True, vectors, np.arange(900)
    mixed[~seen] = hidden
    beside = [Place(matrix_of(mixed), seen, chunks)]
    for query in clusters(30).astype(np.float32):
        answers = [nearest(places, query, 50, threads) for places in (one, several, beside)]
        assert answers[0] == answers[1] == answers[2]  # scores too, to the bit


def test_ties_stand_by_chunk_id(threads: Threads) -> None:
    matrix = matrix_of(np.ones((40, D)) / D**0.5)
    found = nearest([Place(matrix, np.ones(40, bool), np.arange(40)[::-1].copy())], np.ones(D, np.float32), 15, threads)
    assert ids(found) == list(range(15))


def test_a_chunk_without_a_vector_is_not_proposed(threads: Threads) -> None:
    vectors = clusters(10)
    vectors[3] = np.nan
    found = nearest([Place(matrix_of(vectors), np.ones(10, bool), np.arange(10))], np.ones(D, np.float32), 10, threads)
    assert sorted(ids(found)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert nearest([], np.ones(D, np.float32), 10, threads) == []


def test_its_bytes_and_rows_can_be_taken_apart_and_put_together() -> None:
    matrix = matrix_of(clusters(31))
    kept = np.arange(31) % 3 == 0
    content = np.concatenate(packed(matrix))
    assert len(content) == 31 * (8 + 2 * D)
    for other in (
        unpacked(content, 31),
        stacked([rows_of(matrix, np.arange(31) < 9), rows_of(matrix, np.arange(31) >= 9)]),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(packed(matrix), packed(other), strict=True))
    assert np.array_equal(of_bytes(rows_of(matrix, kept)), of_bytes(matrix)[kept])
    with pytest.raises(ValueError):
        unpacked(content[:-5], 31)
