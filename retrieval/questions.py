"""The vectors of questions and their tokens: kept for the next time, and not asked of a model that stopped answering.

What is kept depends on the text and the model alone. Yet each asker has its own: when the model is away, an answer by
somebody else's vector would tell that somebody asked the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from core.records import AccessScope
from models.embedder import Embedder
from retrieval.breaker import Breaker

KEPT = 1024  # questions: at 384 dimensions 1.5 kB each and 0.8 kB a token, so some 12 MB, and 130 MB at the most
LONGEST = 700  # characters of a question that is kept

Key = tuple[UUID, str, str, str]  # tenant, subject, model, text
Vectors = tuple[NDArray[np.float32], NDArray[np.float16]]  # of the text, and of its tokens: [0, 0] where there are none


class Questions:
    """The last questions' vectors in this process. Safe to share between threads."""

    def __init__(self, kept: int = KEPT, breaker: Breaker | None = None) -> None:
        self._size, self._breaker = kept, breaker or Breaker("the embedder")
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Vectors] = OrderedDict()

    def vectors(self, embedder: Embedder, asker: AccessScope, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector [dimensions] of each text. Raises Resting while the embedder is given a rest."""
        return [vector for vector, _ in self._of(embedder, asker, texts)]

    def tokens(self, embedder: Embedder, asker: AccessScope, text: str) -> NDArray[np.float16]:
        """The text's rotated token vectors [tokens, bits], of the pass that its vector came from. Raises Resting."""
        return self._of(embedder, asker, [text])[0][1]

    def _of(self, embedder: Embedder, asker: AccessScope, texts: Sequence[str]) -> list[Vectors]:
        model = f"{embedder.name}/{embedder.precision}"
        keys = [(asker.tenant_id, asker.subject, model, text) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            with self._breaker.guarding():
                vectors, tokens = embedder.embed_queries_with_tokens([key[-1] for key in missing])
            halves = [of_text.astype(np.float16) for of_text in tokens] or [np.empty((0, 0), np.float16)] * len(missing)
            found |= dict(zip(missing, zip(vectors, halves, strict=True), strict=True))
        self._keep({key: found[key] for key in keys if len(key[-1]) <= LONGEST})
        return [found[key] for key in keys]

    def _keep(self, used: dict[Key, Vectors]) -> None:
        with self._lock:
            self._kept |= used
            for key in used:
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
