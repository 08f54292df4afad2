"""The rerankers that tenants had trained, as searches of this process use them."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from core.errors import RerankerUnavailable
from core.trained import RerankerKind, TrainedReranker
from models.reranker import Proposed, Question, Reranker
from models.trained import open_trained
from retrieval.rerank import RERANK_POOL, Boxed


class Trained:
    """Opens what tenants' rerankers are made of, each when its first question comes. Safe to share between threads."""

    def __init__(self, folder: Path | None = None, late_box_s: float = 1.0, box_s: float = 2.0) -> None:
        self._folder, self._boxes = folder, {"late": late_box_s, "cross-encoder": box_s}
        self._lock = threading.Lock()
        self._opened: dict[str, Reranker] = {}  # by digest

    def own(self, which: TrainedReranker | None, profile_id: int) -> Boxed | None:
        """A tenant's own reranker; None when it has none that was proved behind this profile's index."""
        if which is None or which.profile_id != profile_id:
            return None
        box_s, pool = self._boxes[which.kind], min(which.pool, RERANK_POOL)
        return Boxed(_WhenAsked(self, which), box_s, which.weight, pool)

    def opened(self, which: TrainedReranker) -> Reranker:
        """The reranker itself. Raises RerankerUnavailable."""
        if self._folder is None:
            raise RerankerUnavailable("this process opens no trained rerankers")
        with self._lock:  # one model is loaded once, and others wait for it, in their time boxes
            if which.digest not in self._opened:
                self._opened[which.digest] = open_trained(self._folder / which.name, which.kind, which.digest)
            return self._opened[which.digest]


class _WhenAsked:
    """Opened within the time box of its first question: a host that lacks it answers without, and says so."""

    def __init__(self, trained: Trained, which: TrainedReranker) -> None:
        self._trained, self._which = trained, which

    @property
    def reads(self) -> Literal["text", "code"]:
        return _READS[self._which.kind]

    def score(self, question: Question, passages: Sequence[Proposed]) -> list[float | None]:
        return self._trained.opened(self._which).score(question, passages)


_READS: dict[RerankerKind, Literal["text", "code"]] = {"late": "code", "cross-encoder": "text"}
