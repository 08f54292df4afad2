"""The lexical engines, as tests open them."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from core.errors import ReplicaUnavailable, StoreUnavailable
from retrieval.follower import Follower
from retrieval.lexical import LexicalIndex, RankBm25Index
from retrieval.replica_index import Key, ReplicaIndex, _Held
from retrieval.sight import ReplicaSight
from store.chunks import Scan
from store.pool import Conn, Store

EVERY_S = 0.05

Make = Callable[[Store, Path], LexicalIndex]


class Followed(ReplicaIndex):
    """The fast engine, whose follower makes a step before each search."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(store, root, watch_s=0)
        self.follower, self.one_at_a_time = Follower(store, root), threading.Lock()
        self.follower.step()

    def _newest(self, key: Key) -> Sequence[_Held]:
        with self.one_at_a_time:
            with suppress(ReplicaUnavailable):
                super()._newest(key)  # what a process holds that has searched before
            self.follower.step()
            return super()._newest(key)


class FollowedAllTheTime(ReplicaIndex):
    """The fast engine, with a follower on a thread of its own, many times a second."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(store, root, watch_s=EVERY_S)
        self._follower = Follower(store, root, erase_after_s=0)
        self._follower.step()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def look(self, conn: Conn, scan: Scan) -> ReplicaSight:
        with suppress(ReplicaUnavailable):
            self._newest((scan.scope.tenant_id, scan.profile_id))  # a search would not wait for it
        return super().look(conn, scan)

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
