"""Redis as the API and the dispatcher see it: does it answer, and how much waits in the queue."""

import redis

from core.errors import BrokerUnavailable

QUEUE = "citadel"
TIMEOUT_S = 2.0


class RedisBroker:
    """A connection to the Celery broker's Redis."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)

    def queue_length(self) -> int:
        """Messages that no worker has taken yet. Raises BrokerUnavailable."""
        try:
            return int(self._redis.llen(QUEUE))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis did not answer: {error}") from error
