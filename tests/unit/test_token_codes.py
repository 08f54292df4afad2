"""Token codes and MaxSim, against their formulas."""

import hashlib
import math
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from models.maxsim import best_products
from models.token_codes import FEW, decode, encode, maxsim, rotation

DIMENSIONS = (8, 24, 128, 384, 768)


def unit(rows: int, dimensions: int, seed: int) -> npt.NDArray[np.float32]:
    """Random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# --- the rotation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_the_rotation_is_orthogonal(dimensions: int) -> None:
    turned = rotation(dimensions).astype(np.float64)
    np.testing.assert_allclose(turned @ turned.T, np.eye(dimensions), atol=1e-6)


def by_definition(dimensions: int) -> list[list[float]]:
    """M·D2·M·D1 over Python's integers: M the Kronecker product of q·I - 2·J and Sylvester's matrix, whose entry (i, j)
    is -1 to the number of bits that i and j share; the signs are the last bits of SHAKE-256."""
    power = dimensions & -dimensions
    q = dimensions // power
    drawn = hashlib.shake_256(b"citadel token rotation 1").digest(2 * dimensions)
    signs = [1 - 2 * (byte & 1) for byte in drawn]
    mixing = [[(q * (i // power == j // power) - 2) * (-1) ** ((i % power) & (j % power)).bit_count()
               for j in range(dimensions)] for i in range(dimensions)]  # fmt: skip
    left = [[entry * signs[dimensions + j] for j, entry in enumerate(row)] for row in mixing]
    right = [[entry * signs[j] for j, entry in enumerate(row)] for row in mixing]
    return [[sum(map(int.__mul__, row, column)) / (q * q * power) for column in zip(*right, strict=True)]
            for row in left]  # fmt: skip


@pytest.mark.parametrize("dimensions", [8, 24, 128])
def test_the_rotation_is_its_definition(dimensions: int) -> None:
    """To the bit: the stored codes of other processes and machines are made with the same."""
    assert rotation(dimensions).tobytes() == np.array(by_definition(dimensions), np.float32).tobytes()


def test_another_process_has_the_same_rotation() -> None:
    code = "import sys; from models.token_codes import rotation; sys.stdout.buffer.write(rotation(384).tobytes())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == rotation(384).tobytes()


def test_it_spreads_what_lies_in_one_component() -> None:
    """A vector of one component only, which the signs of its own components could not tell apart from others."""
    assert np.abs(rotation(384)).max() < 0.25
    assert (rotation(384) != 0).mean() > 0.9


# --- codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_signs_come_back(dimensions: int) -> None:
    rotated = unit(17, dimensions, 1)
    code = encode(rotated)
    assert len(code) == 17 * dimensions // 8
    np.testing.assert_array_equal(decode(code, dimensions), np.where(rotated > 0, 1, -1))


def test_a_text_without_tokens_has_an_empty_code() -> None:
    assert encode(np.empty((0, 384), np.float32)) == b""


# --- MaxSim -------------------------------------------------------------------------------------------------------


def double_loop(question: npt.NDArray[np.float32], signs: npt.NDArray[np.float32]) -> float:
    """The formula, in float64."""
    total = 0.0
    for asked in question.astype(np.float64):
        total += max(math.fsum(asked * token) for token in signs.astype(np.float64))
    return total / len(question) * math.sqrt(math.pi / (2 * question.shape[1]))


def texts(count: int, dimensions: int, seed: int) -> list[bytes]:
    """Codes of texts of 1 to 60 tokens."""
    chance = random.Random(seed)
    return [encode(unit(chance.randint(1, 60), dimensions, seed + n)) for n in range(count)]


@pytest.mark.parametrize("dimensions", [24, 128, 384])
def test_it_is_the_mean_of_maxima(dimensions: int) -> None:
    question, codes = unit(7, dimensions, 2), texts(20, dimensions, 3)
    grids = [2**n for n in range(20) if np.abs(np.round(question * 2**n)).sum(axis=1).max() < 2**15 - dimensions / 2]
    rounded = np.round(question * grids[-1]) / grids[-1]
    on_grid = [double_loop(rounded, decode(code, dimensions)) for code in codes]
    np.testing.assert_allclose(maxsim(question, codes), on_grid, atol=1e-9)
    exact = [double_loop(question, decode(code, dimensions)) for code in codes]
    deviation = math.sqrt(math.pi / 24) / grids[-1]  # of a product, by rounding: sqrt(pi / 2d) · sqrt(d / 12) steps
    np.testing.assert_allclose(maxsim(question, codes), exact, atol=4 * deviation)


def test_sums_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="32767"):
        best_products(np.full((1, 8), 4096, np.int16), np.zeros(1, np.uint8), np.ones(1, np.int64))


def scores_of(question: npt.NDArray[np.float32], codes: Sequence[bytes]) -> list[bytes]:
    """To the bit."""
    return [score.tobytes() for score in maxsim(question, codes)]


@pytest.mark.parametrize("dimensions", [24, 384])
def test_numpy_scores_as_the_loops_do(dimensions: int) -> None:
    question, codes = unit(40, dimensions, 8), texts(FEW, dimensions, 9)
    assert maxsim(question, codes, FEW).tobytes() == maxsim(question, codes).tobytes()


@pytest.mark.parametrize("tokens", [1, 3, 14, 64])
def test_neighbours_do_not_move_a_score(tokens: int) -> None:
    question, codes = unit(tokens, 384, 4), texts(60, 384, 5)
    together = scores_of(question, codes)
    assert together == [scores_of(question, [code])[0] for code in codes]
    assert together[20:35] == scores_of(question, codes[20:35])
    assert together[::-1] == scores_of(question, codes[::-1])


def test_a_code_of_another_width_is_refused() -> None:
    for plain in (0, FEW):
        with pytest.raises(ValueError, match="48 bytes"):
            maxsim(unit(3, 384, 4), [b"\x00" * 48, b"\x00" * 47], plain)


def test_it_estimates_the_cosine() -> None:
    """One token against one: the error's deviation is at most sqrt((pi / 2 - 1) / dimensions), here 0.039."""
    one, other = unit(400, 384, 6), unit(400, 384, 7)
    near = one + 0.7 * other
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    cosines = np.einsum("nd,nd->n", one, near)
    turn = rotation(384).T
    found = np.array([maxsim(q[None] @ turn, [encode(d[None] @ turn)])[0] for q, d in zip(one, near, strict=True)])
    assert abs(float((found - cosines).mean())) < 0.039 / math.sqrt(400) * 4
    assert float((found - cosines).std()) < 0.039 * 1.2


def test_a_question_finds_its_reranker_compiled() -> None:
    """In a process of its own, for this one has scored already."""
    told = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True)
    opened, asked = told.stdout.split()
    assert opened == asked == "1"


COLD = """
import numpy as np
from models import maxsim
from models.reranker import LateInteraction, Proposed, Question
from models.maxsim import best_products
from models.token_codes import encode
late = LateInteraction()
print(len(maxsim._scan.signatures))
tokens = np.eye(2, 64, dtype=np.float32)
assert late.score(Question("", lambda: tokens), [Proposed("", encode(tokens))])[0] is not None
print(len(maxsim._scan.signatures))
"""
