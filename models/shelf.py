"""The models of a process: the one it started with, and those that other profiles need, each opened once."""

import threading
from collections.abc import Callable

from core.errors import ModelMismatch
from core.records import Profile
from models.embedder import Embedder, check_model

Opener = Callable[[str, str], Embedder]  # of a model's name and precision


class Shelf:
    """Opens a profile's model when it is first asked for. Safe to share between threads."""

    def __init__(self, opener: Opener | None = None) -> None:
        self._opener, self._lock = opener, threading.Lock()
        self._opened: dict[tuple[str, str], Embedder] = {}

    def fitting(self, first: Embedder | None, profile: Profile) -> Embedder:
        """`first` where the profile's vectors are its own, else the profile's model.

        Raises ModelMismatch where there is no way to open another, and what opening it does.
        """
        wanted = (profile.model, profile.precision)
        if first and ((first.name, first.precision) == wanted or self._opener is None):
            check_model(first, profile)
            return first
        if self._opener is None:
            raise ModelMismatch(f"the profile {profile.name!r} wants {profile.model!r}, and nothing here opens it")
        with self._lock:  # one model is loaded once, and others wait for it
            if wanted not in self._opened:
                embedder = self._opener(*wanted)
                embedder.embed_queries(["warm"])  # the first call of a compiled model is many times slower
                self._opened[wanted] = embedder
            check_model(self._opened[wanted], profile)
            return self._opened[wanted]
