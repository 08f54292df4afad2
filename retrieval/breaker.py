"""A circuit breaker: what keeps failing is left alone for a while, so that no answer waits for it in vain.

M. Nygard, Release It!, 2nd ed. 2018, chapter 5.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import Permanent, Resting

FAILURES = 3  # in a row, until it opens
REST_S = 5.0  # until one call tries again
SLOW_S = 2.0  # a call that takes longer has failed: whoever waited for it has gone on without


class Breaker:
    """Guards the calls to one dependency. Safe to share between threads."""

    def __init__(
        self, name: str, failures: int = FAILURES, rest_s: float = REST_S, slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._name, self._limit, self._rest_s, self._slow_s, self._clock = name, failures, rest_s, slow_s, clock
        self._lock = threading.Lock()
        self._failed = 0  # in a row
        self._try_at = 0.0

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Around a call. Raises Resting in its place while the breaker is open.

        A Permanent error is the request's own fault and counts as an answer.
        """
        started = self._start()
        try:
            yield
        except Permanent:
            self._end(failed=False)
            raise
        except BaseException:
            self._end(failed=True)
            raise
        self._end(failed=self._clock() - started > self._slow_s)

    def _start(self) -> float:
        with self._lock:
            now = self._clock()
            if self._failed >= self._limit:
                if now < self._try_at:
                    raise Resting(f"{self._name} failed {self._failed} times in a row: it is tried again soon")
                self._try_at = now + self._rest_s  # this call tries; the others rest on
            return now

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            self._failed = self._failed + 1 if failed else 0
            if self._failed >= self._limit:
                self._try_at = self._clock() + self._rest_s
