"""When a call is tried again, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Calls that may be repeated are, on 429, 503 and when no connection could be made.

    The waits double from `first_wait_s`, each shortened by up to half at random so that many clients do not come back
    at once. A `Retry-After` from the server is never undercut; one above `max_wait_s` ends the tries.
    """

    attempts: int = 4  # in all; 1 means never again
    first_wait_s: float = 0.25
    max_wait_s: float = 10.0

    def wait(self, attempt: int, retry_after: float | None, draw: float) -> float | None:
        """Seconds to wait after the `attempt`-th try (the first is 1); None: give up. `draw` is uniform in [0, 1)."""
        if attempt >= self.attempts or (retry_after or 0.0) > self.max_wait_s:
            return None
        full = min(self.max_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        return max(full * (1.0 - draw / 2.0), retry_after or 0.0)


NEVER = RetryPolicy(attempts=1)
