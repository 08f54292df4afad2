"""Rerankers: a second, closer look at the best candidates."""

from collections.abc import Sequence
from typing import Protocol

from core.errors import Misconfigured


class Reranker(Protocol):
    """Scores passages against a query: one float a passage, a larger one is better."""

    def score(self, query: str, passages: Sequence[str]) -> list[float]: ...


class CrossEncoderReranker:
    """Any sentence-transformers CrossEncoder, by name or folder."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import CrossEncoder

        try:
            self._model = CrossEncoder(model)
        except OSError as error:
            raise Misconfigured(
                f"reranker {model!r} cannot be loaded: name a model that is on this machine, or a folder ({error})"
            ) from error

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """One score a passage, as the model gives it."""
        if not passages:
            return []
        scores = self._model.predict([(query, passage) for passage in passages], show_progress_bar=False)
        return [float(score) for score in scores]
