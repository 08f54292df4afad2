"""How jobs end that do not end well: what an error makes of an attempt, on the job's row."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from core.errors import (
    CitadelError,
    LeaseLost,
    Misconfigured,
    Permanent,
    Retryable,
    SensitiveContent,
    StoreUnavailable,
)
from core.records import Lease
from store import jobs, policies
from store.pool import Conn, Store, writing

WRITE_DOWN_S = 600.0  # so long does an outcome wait for a Postgres that is away; less than a task's time limit
AWAY_S = 1.0  # between two tries at that


class Endings:
    """Of the jobs of one attempt. `blamed`: of what may pass, what the document may be to blame for."""

    def __init__(self, store: Store, blamed: tuple[type[Retryable], ...] = ()) -> None:
        self._store, self._blamed = store, blamed
        self._outcomes: dict[UUID, str] = {}

    def of(self, job_id: UUID) -> str:
        """`done`, unless something went wrong: `failed`, `quarantined`, `retry`, `waits` or `lost`."""
        return self._outcomes.get(job_id, "done")

    @contextmanager
    def told(self, *leases: Lease) -> Iterator[None]:
        """Write down what goes wrong in the body as how those of the jobs ended that have not ended yet, and go on.

        What is unforeseen goes up as well, and so stops those that were done together: they are done again, each alone.
        """
        try:
            yield
        except CitadelError as error:
            self._end(leases, error, error.code, str(error))
        except Exception as error:
            self._end(leases, error, "internal", f"an unforeseen {type(error).__name__}; see the worker's log")
            if any(self.of(lease.job.id) != "lost" for lease in leases):
                raise

    def _end(self, leases: Sequence[Lease], error: Exception, code: str, reason: str) -> None:
        outcome, write = self._ending(error)
        for lease in leases:
            if lease.job.id in self._outcomes:
                continue
            try:
                if write is not None:
                    _write_down(self._store, partial(write, lease=lease, code=code, reason=reason))
                self._outcomes[lease.job.id] = outcome
            except LeaseLost:  # found when it wanted to write down how it failed
                self._outcomes[lease.job.id] = "lost"

    def _ending(self, error: Exception) -> tuple[str, Callable[..., None] | None]:
        """What such an error makes of an attempt, and what writes that down."""
        if isinstance(error, LeaseLost):
            return "lost", None
        if isinstance(error, self._blamed):
            return "retry", jobs.retry_or_quarantine
        if isinstance(error, (Retryable, Misconfigured)):
            return "waits", jobs.give_back
        if isinstance(error, SensitiveContent):
            return "quarantined", policies.withhold
        return ("failed", jobs.fail) if isinstance(error, Permanent) else ("retry", jobs.retry_or_quarantine)


def _write_down(store: Store, write: Callable[[Conn], None]) -> None:
    """Commit the outcome, when Postgres is back if it is away: a lease that runs out instead counts as an attempt."""
    give_up = time.monotonic() + WRITE_DOWN_S
    while True:
        try:
            with writing(store) as conn:
                write(conn)
            return
        except StoreUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(AWAY_S)
