"""Rerankers: a second, closer look at the best candidates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from core.errors import Misconfigured
from models.token_codes import FEW, maxsim


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: its text, and a call for its rotated token vectors [tokens, bits]; none if there are none."""

    text: str
    tokens: Callable[[], npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True)
class Proposed:
    """A passage to score: its text, and its stored code; None when it has none."""

    text: str
    code: bytes | None = None


class Reranker(Protocol):
    """Scores passages against a question. A passage's score depends on the two alone, not on what else is scored."""

    @property
    def reads(self) -> Literal["text", "code"]:
        """What it needs of a passage: its text, which is always there, or its code."""

    def score(self, question: Question, passages: Sequence[Proposed]) -> list[float | None]:
        """A float a passage, a larger one is better; None for one that it cannot score."""


class LateInteraction:
    """MaxSim over stored codes: no model call but the question's own."""

    reads: Literal["text", "code"] = "code"

    def __init__(self, ready: bool = True) -> None:
        """Without `ready` the loops are compiled when more than a few passages are scored, which may be never."""
        self._plain = 0 if ready else FEW
        if ready:
            from models.maxsim import compile_maxsim  # numba takes a second, which is not the first question's

            compile_maxsim()

    def score(self, question: Question, passages: Sequence[Proposed]) -> list[float | None]:
        """An estimated mean cosine; None for passages without a code, and for a question without a token."""
        codes = [passage.code for passage in passages if passage.code]
        tokens = question.tokens() if codes else np.empty((0, 0))
        if not len(tokens):
            return [None] * len(passages)
        scores = iter(maxsim(tokens, codes, self._plain).tolist())
        return [next(scores) if passage.code else None for passage in passages]


class CrossEncoderReranker:
    """Any sentence-transformers CrossEncoder, by name or folder."""

    reads: Literal["text", "code"] = "text"

    def __init__(self, model: str) -> None:
        from sentence_transformers import CrossEncoder

        try:
            self._model = CrossEncoder(model)
        except OSError as error:
            raise Misconfigured(
                f"reranker {model!r} cannot be loaded: name a model that is on this machine, or a folder ({error})"
            ) from error

    def score(self, question: Question, passages: Sequence[Proposed]) -> list[float | None]:
        """One score a passage, as the model gives it."""
        if not passages:
            return []
        # One passage a pass, without padding: in a batch the neighbours' lengths would move a score.
        pairs = [(question.text, passage.text) for passage in passages]
        return [float(score) for score in self._model.predict(pairs, batch_size=1, show_progress_bar=False)]
