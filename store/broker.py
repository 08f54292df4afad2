"""Redis as the API and the dispatcher see it: does it answer, and how much waits in its queues."""

import redis

from core.errors import BrokerUnavailable

# By kind of work, not by stage: what waits for a network, what computes, and what may wait for both.
QUEUES = {
    "index": "citadel.index", "refresh": "citadel.refresh", "upkeep": "citadel.upkeep", "eval": "citadel.eval",
}  # fmt: skip
TIMEOUT_S = 2.0


class RedisBroker:
    """A connection to the Celery broker's Redis."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)

    def queue_length(self, kind: str | None = None) -> int:
        """Messages that no worker has taken yet, of one kind or all. Raises BrokerUnavailable."""
        try:
            return sum(int(self._redis.llen(name)) for each, name in QUEUES.items() if kind in (None, each))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis did not answer: {error}") from error
