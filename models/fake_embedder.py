"""An embedder without a model: words hashed into a bag, so that texts that share words are near each other."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.token_codes import encode, rotation

_TOKEN = re.compile(r"\w+|[^\w\s]")


class FakeEmbedder:
    """For tests: deterministic on every machine, and with nothing to load."""

    name = "fake"
    dimensions = 128
    precision = "f32"
    max_tokens = 256
    token_bits = 128

    def __init__(self, dimensions: int = 128) -> None:
        if dimensions != FakeEmbedder.dimensions:  # another model, to move between two
            self.name, self.dimensions, self.token_bits = f"fake-{dimensions}", dimensions, dimensions

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), dimensions]: feature hashing (Weinberger et al. 2009), one signed bucket a word."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row += self._words(text).sum(axis=0)
            length = float(np.linalg.norm(row))
            if length:
                row /= length
            else:  # no words, or words that cancel out
                row[0] = 1
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As documents."""
        return self.embed_documents(texts)

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """`embed_documents`, and 16 bytes a word: equal for equal words."""
        return self.embed_documents(texts), [encode(self._rotated(text)) for text in texts]

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """`embed_queries`, and a vector a word."""
        return self.embed_queries(texts), [self._rotated(text) for text in texts]

    def _words(self, text: str) -> npt.NDArray[np.float32]:
        """float32 [words, dimensions]: 1 or -1 in each word's bucket."""
        words = _TOKEN.findall(text.lower())[: self.max_tokens]
        found = np.zeros((len(words), self.dimensions), np.float32)
        for row, word in zip(found, words, strict=True):
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            row[int.from_bytes(digest[:4]) % self.dimensions] = 1 if digest[4] & 1 else -1
        return found

    def _rotated(self, text: str) -> npt.NDArray[np.float32]:
        return self._words(text) @ rotation(self.dimensions).T

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words and marks of each text."""
        return [len(_TOKEN.findall(text)) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each word or mark."""
        return [found.span() for found in _TOKEN.finditer(text)]
