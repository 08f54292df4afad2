"""The vectors of questions and their tokens: kept for the next time, and not asked of a model that stopped answering.

What is kept depends on the text and the model alone. Yet each asker has its own: when the model is away, an answer by
somebody else's vector would tell that somebody asked the same. Who needs what is being made waits for it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from core.records import AccessScope, Principal
from models.embedder import Embedder
from retrieval.breaker import Breaker

KEPT = 1024  # questions: at 384 dimensions 1.5 kB each and 0.8 kB a token, so some 12 MB, and 130 MB at the most
LONGEST = 700  # characters of a question that is kept

Key = tuple[UUID, str, str, str]  # tenant, subject, model, text
Vectors = tuple[NDArray[np.float32], NDArray[np.float16]]  # of the text, and of its tokens: [0, 0] where there are none
Asker = AccessScope | Principal  # whose tenant and subject count


def vectors_of(embedder: Embedder, texts: Sequence[str]) -> list[Vectors]:
    """Of each text in one pass, the tokens' rounded as they are kept; none where the model gives none."""
    vectors, tokens = embedder.embed_queries_with_tokens(texts)
    halves = [of_text.astype(np.float16) for of_text in tokens] or [np.empty((0, 0), np.float16)] * len(texts)
    return list(zip(vectors, halves, strict=True))


class Questions:
    """The last questions' vectors in this process. Safe to share between threads."""

    def __init__(self, kept: int = KEPT, breaker: Breaker | None = None) -> None:
        self._size, self._breaker = kept, breaker or Breaker("the embedder")
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Vectors] = OrderedDict()
        self._made: WeakValueDictionary[Key, Future[Vectors]] = WeakValueDictionary()  # or being made, for who holds it

    def begin(
        self, submit: Callable[..., Future[Any]], embedder: Embedder, asker: Asker, texts: Sequence[str]
    ) -> list[Future[Vectors]]:
        """Have what is not kept made by a call that `submit` runs elsewhere. As long as what this returns is held,
        `vectors` and `tokens` find it there."""
        found, wanted = self._claim(embedder, asker, texts)
        if wanted:
            submit(self._make, embedder, wanted).add_done_callback(partial(_given_up, wanted))
        return found

    def vectors(self, embedder: Embedder, asker: Asker, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector [dimensions] of each text. Raises Resting while the embedder is given a rest."""
        return [vector for vector, _ in self._of(embedder, asker, texts)]

    def tokens(self, embedder: Embedder, asker: Asker, text: str) -> NDArray[np.float16]:
        """The text's rotated token vectors [tokens, bits], of the pass that its vector came from. Raises Resting."""
        return self._of(embedder, asker, [text])[0][1]

    def _of(self, embedder: Embedder, asker: Asker, texts: Sequence[str]) -> list[Vectors]:
        found, wanted = self._claim(embedder, asker, texts)
        if wanted:
            self._make(embedder, wanted)
        return [each.result() for each in found]

    def _claim(
        self, embedder: Embedder, asker: Asker, texts: Sequence[str]
    ) -> tuple[list[Future[Vectors]], dict[Key, Future[Vectors]]]:
        """Each text's vectors, and those of them that the caller is to make."""
        model = f"{embedder.name}/{embedder.precision}"
        keys = [(asker.tenant_id, asker.subject, model, text) for text in texts]
        found, wanted = list[Future[Vectors]](), dict[Key, Future[Vectors]]()
        with self._lock:
            for key in keys:
                each = self._made.get(key)
                if key in self._kept:
                    self._kept.move_to_end(key)
                    each = Future()
                    each.set_result(self._kept[key])
                elif each is None:
                    self._made[key] = wanted[key] = each = Future()
                found.append(each)
        return found, wanted

    def _make(self, embedder: Embedder, wanted: Mapping[Key, Future[Vectors]]) -> None:
        """The vectors, or why there are none, for all who wait."""
        try:
            made = self._embedded(embedder, list(wanted))
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            for key, each in wanted.items():
                with self._lock:
                    self._made.pop(key, None)  # who asks next tries anew
                each.set_exception(error)
            return
        self._keep({key: each for key, each in made.items() if len(key[-1]) <= LONGEST})
        for key, each in wanted.items():
            each.set_result(made[key])

    def _embedded(self, embedder: Embedder, keys: Sequence[Key]) -> dict[Key, Vectors]:
        with self._breaker.guarding():
            return dict(zip(keys, vectors_of(embedder, [key[-1] for key in keys]), strict=True))

    def _keep(self, made: dict[Key, Vectors]) -> None:
        with self._lock:
            self._kept |= made
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def _given_up(wanted: Mapping[Key, Future[Vectors]], call: Future[Any]) -> None:
    """Nobody is to wait for what a call that never began was to make."""
    if call.cancelled():
        for each in wanted.values():
            each.cancel()
