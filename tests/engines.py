"""The lexical engines, as tests open them."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.errors import ReplicaUnavailable, StoreUnavailable
from core.records import Candidate
from retrieval.follower import Follower
from retrieval.lexical import LexicalIndex, RankBm25Index
from retrieval.replica_index import ReplicaIndex
from store.chunks import Scan
from store.pool import Store, View

EVERY_S = 0.05

Make = Callable[[Store, Path], LexicalIndex]


class Followed(ReplicaIndex):
    """The fast engine, whose follower makes a step before each search."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(store, root, watch_s=0)
        self.follower, self.one_at_a_time = Follower(store, root), threading.Lock()
        self.follower.step()

    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]:
        with self.one_at_a_time, suppress(ReplicaUnavailable):
            self._newest((scan.scope.tenant_id, scan.profile_id))  # what a process holds that has searched before
        with self.one_at_a_time:
            self.follower.step()
        return super().search(query, view, scan, k, timeout_s)


class FollowedAllTheTime(ReplicaIndex):
    """The fast engine, with a follower on a thread of its own, many times a second."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(store, root, watch_s=EVERY_S)
        self._follower = Follower(store, root, erase_after_s=0)
        self._follower.step()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ending.wait(EVERY_S):
            with suppress(StoreUnavailable):
                self._follower.step()

    def close(self) -> None:
        """End both threads."""
        super().close()
        self._ending.set()
        self._thread.join()


def left_behind(store: Store, root: Path) -> LexicalIndex:
    """The fast engine, whose follower has stopped after its first step."""
    Follower(store, root).step()
    return ReplicaIndex(store, root, watch_s=0)


ENGINES: dict[str, Make] = {
    "rank-bm25": lambda store, root: RankBm25Index(store),
    "fast": Followed,
    "fast, left behind": left_behind,
}
