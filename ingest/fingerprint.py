"""What a canonical text is compared by: its hash, and a MinHash signature of its shingles.

Broder, On the resemblance and containment of documents, 1997. Two signatures agree in as large a share of their places
as the texts' sets of shingles resemble each other (Jaccard), give or take: with 128 places and a resemblance of 0.9 the
standard error is 0.027.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.copies import Fingerprint

PLACES = 128
BANDS = 16  # of 8 places: texts that resemble each other by 0.9 share one but in 2 of 10,000 cases, by 0.5 in 6 of 100
SHINGLE = 5  # words
LEAST_SHINGLES = 20  # a shorter text is compared by its hash alone: in it one word is a difference
_AT_ONCE = 1 << 16  # shingles: what is computed at once stays in the processor's cache

_WORD = re.compile(r"\w+")
_MIX = 0x9E3779B97F4A7C15  # the golden ratio's; splitmix64 (Steele, Lea, Flood 2014) makes the other constants of it


def fingerprint(text: str) -> Fingerprint:
    """The text's fingerprint; without signature and bands where it has too few words."""
    whole = hashlib.sha256(text.encode()).digest()
    shingles = _shingles(_WORD.findall(text.lower()))
    if len(shingles) < LEAST_SHINGLES:
        return Fingerprint(whole)
    signature = np.full(PLACES, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _AT_ONCE):
        some = shingles[start : start + _AT_ONCE]
        for place, (times, plus) in enumerate(_FUNCTIONS):
            least = ((some * times + plus) >> np.uint64(32)).min()  # multiply-shift: Dietzfelbinger et al. 1997
            signature[place] = min(signature[place], np.uint32(least))
    return Fingerprint(whole, signature.astype("<u4").tobytes(), _bands(signature))


def _shingles(words: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit hash of each distinct run of words."""
    hashes = {word: zlib.crc32(word.encode()) for word in set(words)}
    ids = np.fromiter((hashes[word] for word in words), np.uint64, len(words))
    runs = np.zeros(max(0, len(words) - SHINGLE + 1), np.uint64)
    for n in range(SHINGLE):  # a polynomial of the words' hashes, so that their order counts
        runs = (runs + ids[n : n + len(runs)]) * np.uint64(_MIX)
    return np.unique(runs ^ (runs >> np.uint64(29)))


def _bands(signature: NDArray[np.uint32]) -> tuple[int, ...]:
    """A 64-bit number for each run of places, another for each band: equal where two texts have the same ones there."""
    rows = signature.reshape(BANDS, -1).astype("<u4")
    hashed = (hashlib.blake2b(bytes([band]) + row.tobytes(), digest_size=8).digest() for band, row in enumerate(rows))
    return tuple(int(struct.unpack("<q", digest)[0]) for digest in hashed)


def _splitmix(n: int) -> int:
    mask = 2**64 - 1
    z = (n * _MIX) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


_FUNCTIONS = [(np.uint64(_splitmix(2 * n + 1) | 1), np.uint64(_splitmix(2 * n + 2))) for n in range(PLACES)]
