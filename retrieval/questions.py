"""The vectors of questions: kept for the next time, and not asked of a model that has stopped answering.

What is kept depends on the text and the model alone, never on who asked, so everybody may share it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.embedder import Embedder
from retrieval.breaker import Breaker

KEPT = 4096  # questions: 6 MB of vectors at 384 dimensions
LONGEST = 2000  # characters of a question that is kept


class Questions:
    """The last questions' vectors in this process. Safe to share between threads."""

    def __init__(self, kept: int = KEPT, breaker: Breaker | None = None) -> None:
        self._size, self._breaker = kept, breaker or Breaker("the embedder")
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], NDArray[np.float32]] = OrderedDict()

    def vectors(self, embedder: Embedder, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector [dimensions] of each text. Raises Resting while the embedder is given a rest."""
        keys = [(embedder.name, embedder.precision, text) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            with self._breaker.guarding():
                computed = embedder.embed_queries([text for _, _, text in missing])
            found |= dict(zip(missing, computed, strict=True))
        self._keep({key: found[key] for key in keys if len(key[2]) <= LONGEST})
        return [found[key] for key in keys]

    def _keep(self, used: dict[tuple[str, str, str], NDArray[np.float32]]) -> None:
        with self._lock:
            self._kept |= used
            for key in used:
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
