"""Room for more work: what is accepted waits in Postgres, and there is an end to how much may wait."""

import threading
import time
from collections.abc import Callable
from uuid import UUID

from core.errors import Overloaded
from store import jobs
from store.pool import Store, writing

LOOK_EVERY_S = 1.0  # counting 100,000 open jobs takes some 10 ms


class Room:
    """Whether tenants have fewer open jobs than `limit`, as of a second ago. Safe to share between threads."""

    def __init__(self, limit: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._lock = threading.Lock()
        self._seen: dict[UUID, tuple[float, int]] = {}  # when a tenant's jobs were counted, and how many they were

    def check(self, store: Store, tenant_id: UUID, share: float = 1.0) -> None:
        """Raises Overloaded when the tenant's open jobs take up that share of the limit."""
        now = self._clock()
        with self._lock:
            at, count = self._seen.get(tenant_id, (float("-inf"), 0))
            if now - at >= LOOK_EVERY_S:
                with writing(store) as conn:
                    count = jobs.count_open(conn, tenant_id, at_most=self._limit)
                self._seen[tenant_id] = (now, count)
        if count >= share * self._limit:
            raise Overloaded(f"{count} jobs wait already, of {self._limit} that may: send more when some are done")
