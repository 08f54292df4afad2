"""The inner loop of MaxSim: sums over sign bits from tables, compiled by numba, without Python's lock.

Four signs of a token choose one of 16 sums of the question's components, so a product of 384 is 96 additions; a row of
a table holds them for 32 of the question's tokens, one vector register on machines that have those of 512 bits. numba
makes no such loop of plain code (it takes 6 times as long), hence the few instructions that are written out.
50 texts of 190 tokens against 22: 0.7 ms on one core; by signs in float32 and a matrix product 4.1 ms.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from models.token_codes import LARGEST

LANES = 32  # of the question's tokens at once
SUMS = 16  # of four components under every choice of signs
_ROW = ir.VectorType(ir.IntType(16), LANES)
_ROW_BYTES = 2 * LANES
_WORD = ir.IntType(64)

Integers = npt.NDArray[np.int16]


def best_products(question: Integers, codes: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Integers:
    """[texts, question's tokens]: of each text the largest product with one of its tokens' signs.

    `question` [tokens, dimensions] holds integers, of each token with magnitudes that sum to LARGEST at most; `codes`
    are the texts' codes one after another, `ends` where each ends. Every text holds a token. Raises ValueError for a
    code of another width, and for sums that would not fit.
    """
    width = question.shape[1] // 8
    if (ends % width).any() or len(codes) != ends[-1]:  # the loop reads memory by address
        raise ValueError(f"codes of {width} bytes a token were expected")
    if np.abs(question.astype(np.int64)).sum(axis=1).max() > LARGEST:
        raise ValueError(f"a token's components may sum to {LARGEST} at most")
    best = np.empty((len(ends), len(question)), np.int16)
    for start in range(0, len(question), LANES):
        part = question[start : start + LANES]
        some = np.zeros((LANES, question.shape[1]), np.int16)
        some[: len(part)] = part
        found = np.empty((len(ends), LANES), np.int16)
        _scan(_tables(some), codes, ends, width, found)
        best[:, start : start + LANES] = found[:, : len(part)]
    return best


def compile_maxsim() -> None:
    """Have the loops compiled now, 0.7 s of it, and not in the first search."""
    stored = np.frombuffer(b"\0", np.uint8)  # read-only, as codes are: numba compiles anew for an array that is not
    best_products(np.ones((1, 8), np.int16), stored, np.ones(1, np.int64))


@numba.njit(nogil=True)
def _tables(question: Integers) -> Integers:
    """[dimensions / 4, SUMS, LANES]: the sum of four components, each with the sign that a bit of the place says."""
    groups = question.shape[1] // 4
    sums = np.empty((groups, SUMS, LANES), np.int16)
    for group in range(groups):
        for signs in range(SUMS):
            for lane in range(LANES):
                total = 0
                for bit in range(4):
                    component = question[lane, 4 * group + bit]
                    total += component if signs >> (3 - bit) & 1 else -component
                sums[group, signs, lane] = total
    return sums


def _token_loop(typing_context: Any, sums: Any, code: Any, width: Any, best: Any) -> tuple[Any, Any]:
    """Raise `best` [LANES] to the products with the token whose code of `width` bytes is at `code`. All but the width
    are addresses."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        sums, code, width, best = arguments

        def row(base: Any, place: Any) -> Any:
            address = builder.add(base, builder.mul(place, ir.Constant(_WORD, _ROW_BYTES)))
            return builder.inttoptr(address, _ROW.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(_ROW, [0] * LANES))  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, width) as loop:
            at = builder.inttoptr(builder.add(code, loop.index), ir.IntType(8).as_pointer())
            byte = builder.zext(builder.load(at), _WORD)
            first = builder.mul(loop.index, ir.Constant(_WORD, 2 * SUMS))
            high = builder.add(first, builder.lshr(byte, ir.Constant(_WORD, 4)))
            low = builder.add(first, builder.or_(builder.and_(byte, ir.Constant(_WORD, 15)), ir.Constant(_WORD, SUMS)))
            both = builder.add(builder.load(row(sums, high), align=2), builder.load(row(sums, low), align=2))
            builder.store(builder.add(builder.load(total), both), total)
        place = row(best, ir.Constant(_WORD, 0))
        old, new = builder.load(place, align=2), builder.load(total)
        builder.store(builder.select(builder.icmp_signed(">", new, old), new, old), place, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


_take_token: Any = intrinsic(_token_loop)


@numba.njit(nogil=True)
def _scan(
    sums: Integers, codes: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], width: int, best: Integers
) -> None:
    at_sums, at_codes, at_best = np.int64(sums.ctypes.data), np.int64(codes.ctypes.data), np.int64(best.ctypes.data)
    start = 0
    for text in range(len(ends)):
        best[text] = -LARGEST
        for token in range(start, ends[text], width):
            _take_token(at_sums, at_codes + token, np.int64(width), at_best + text * _ROW_BYTES)
        start = ends[text]
