"""The vectors of questions and their tokens: kept for the next time, and not asked of a model that stopped answering.

What is kept depends on the text and the model alone, never on who asked, so everybody may share it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.embedder import Embedder
from retrieval.breaker import Breaker

KEPT = 1024  # questions: at 384 dimensions 1.5 kB each and 0.8 kB a token, so some 12 MB, and 130 MB at the most
LONGEST = 700  # characters of a question that is kept

Vectors = tuple[NDArray[np.float32], NDArray[np.float16]]  # of the text, and of its tokens: [0, 0] where there are none


class Questions:
    """The last questions' vectors in this process. Safe to share between threads."""

    def __init__(self, kept: int = KEPT, breaker: Breaker | None = None) -> None:
        self._size, self._breaker = kept, breaker or Breaker("the embedder")
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Vectors] = OrderedDict()

    def vectors(self, embedder: Embedder, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector [dimensions] of each text. Raises Resting while the embedder is given a rest."""
        return [vector for vector, _ in self._of(embedder, texts)]

    def tokens(self, embedder: Embedder, text: str) -> NDArray[np.float16]:
        """The text's rotated token vectors [tokens, bits], of the pass that its vector came from. Raises Resting."""
        return self._of(embedder, [text])[0][1]

    def _of(self, embedder: Embedder, texts: Sequence[str]) -> list[Vectors]:
        keys = [(embedder.name, embedder.precision, text) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            with self._breaker.guarding():
                vectors, tokens = embedder.embed_queries_with_tokens([text for _, _, text in missing])
            halves = [of_text.astype(np.float16) for of_text in tokens] or [np.empty((0, 0), np.float16)] * len(missing)
            found |= dict(zip(missing, zip(vectors, halves, strict=True), strict=True))
        self._keep({key: found[key] for key in keys if len(key[2]) <= LONGEST})
        return [found[key] for key in keys]

    def _keep(self, used: dict[tuple[str, str, str], Vectors]) -> None:
        with self._lock:
            self._kept |= used
            for key in used:
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
