"""Token vectors as sign bits, and MaxSim over them.

A text's code is, token by token, the sign of each component of its token's vector after a fixed rotation. Nothing is
learned: a projection fitted to documents would let hidden ones move scores. The question's vectors stay in float.

MaxSim: Khattab, Zaharia, "ColBERT", SIGIR 2020. Sign bits of rotated vectors, one side in float: Dong, Charikar, Li,
"Asymmetric Distance Estimation with Sketches", SIGIR 2008.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LARGEST = 2**15 - 1  # that a sum over a token's components may come to
FEW = 32  # codes that NumPy scores in 2.5 ms, where the loops would have to be compiled first, for 0.7 s

_SEED = b"citadel token rotation 1"
_SIGNS = np.array([[1 if byte & (128 >> bit) else -1 for bit in range(8)] for byte in range(256)], np.float32)


@cache
def rotation(dimensions: int) -> Floats:
    """Orthogonal [dimensions, dimensions]: M·D2·M·D1, the D random signs, M the Kronecker product of a reflection and a
    Hadamard matrix. Made of integers up to one last division, so its bytes are the same on every machine.
    """
    power = dimensions & -dimensions
    odd = dimensions // power
    mixing = np.kron(odd * np.eye(odd, dtype=np.int64) - 2, _hadamard(power))
    drawn = np.frombuffer(hashlib.shake_256(_SEED).digest(2 * dimensions), np.uint8).reshape(2, dimensions)
    first, second = 1 - 2 * (drawn & 1).astype(np.int64)
    rotated: Floats = ((mixing * second) @ (mixing * first) / (odd * odd * power)).astype(np.float32)
    rotated.setflags(write=False)
    return rotated


def encode(rotated: Floats) -> bytes:
    """The code of one text: `rotated` [tokens, dimensions] to a bit a component, 1 where it is positive."""
    return np.packbits(rotated > 0, axis=1).tobytes()


def decode(codes: bytes, dimensions: int) -> Floats:
    """The signs [tokens, dimensions] as 1 and -1. Dimensions are a multiple of 8."""
    signs = np.take(_SIGNS, np.frombuffer(codes, np.uint8), axis=0)  # 8 times faster than by an index in brackets
    return np.asarray(signs.reshape(-1, dimensions), np.float32)


def maxsim(question: npt.NDArray[np.floating[Any]], codes: Sequence[bytes], plain: int = 0) -> npt.NDArray[np.float64]:
    """For each code the mean over the question's tokens of the best estimated cosine to one of the text's tokens.

    `question` [tokens, dimensions] is rotated and of unit length. The expected product of a rotated vector with the
    signs of another is sqrt(2·dimensions / pi) times their cosine, hence the scale. The question is rounded to a grid
    on which its sums fit 16 bits (of 2^-10 or finer at 384 dimensions, which moves a cosine by some 0.0004 where the
    signs move it by 0.04), and sums are of integers: a text's score depends neither on its neighbours in `codes` nor on
    the order of a sum. Codes and question hold at least one token each. Up to `plain` codes are scored by NumPy, the
    same to the bit. Raises ValueError for a code of another width.
    """
    dimensions = question.shape[1]
    whole = question.astype(np.float64)
    longest = max(np.abs(whole).sum(axis=1).max(), np.finfo(np.float64).tiny)
    grid = 2.0 ** np.floor(np.log2((LARGEST - dimensions / 2) / longest))  # half a step of rounding a component
    rounded = np.rint(whole * grid).astype(np.int16)
    best = (_by_numpy if len(codes) <= plain else _by_loops)(rounded, codes)
    return np.asarray(best.mean(axis=1) * (np.sqrt(np.pi / (2 * dimensions)) / grid))


def _by_loops(question: npt.NDArray[np.int16], codes: Sequence[bytes]) -> npt.NDArray[np.int16]:
    """[texts, question's tokens]: of each text the largest product with one of its tokens' signs."""
    from models.maxsim import best_products  # numba takes a second, which other users of codes need not

    ends = np.cumsum([len(code) for code in codes])
    return best_products(question, np.frombuffer(b"".join(codes), np.uint8), ends)


def _by_numpy(question: npt.NDArray[np.int16], codes: Sequence[bytes]) -> npt.NDArray[np.int16]:
    """The same: float32 holds sums of 16 bits exactly."""
    width = question.shape[1] // 8
    if any(len(code) % width for code in codes):
        raise ValueError(f"codes of {width} bytes a token were expected")
    tokens = np.cumsum([0, *(len(code) // width for code in codes)])
    products = decode(b"".join(codes), question.shape[1]) @ question.T.astype(np.float32)
    return np.maximum.reduceat(products, tokens[:-1], axis=0).astype(np.int16)


def _hadamard(size: int) -> npt.NDArray[np.int64]:
    """Sylvester's, of a power of two."""
    matrix = np.ones((1, 1), np.int64)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
