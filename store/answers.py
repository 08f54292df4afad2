"""Redis as a place for sealed values: a fixed number of places a tenant, each of at most so many bytes, for so long.

Redis is never trusted and never waited for: a value that was put there by another hand is told by its seal, and one
that does not come at once does not come.
"""

from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import BrokerUnavailable

TIMEOUT_S = 0.05  # to connect, and for each reply: a search takes some 10 ms without
MAX_VALUE = 16 * 1024  # bytes; an answer of 100 passages takes 12,000


class RedisPlaces:
    """Places 0 … `places - 1` of each tenant. A value in a place replaces the one before it."""

    def __init__(self, url: str, max_bytes: int, keep_s: float, timeout_s: float = TIMEOUT_S) -> None:
        once = Retry(NoBackoff(), 0)
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once, health_check_interval=0
        )
        self.places = max(1, max_bytes // MAX_VALUE)
        self.keep_s = keep_s

    def get(self, tenant_id: UUID, place: int) -> bytes | None:
        """What stands there. Raises BrokerUnavailable."""
        try:
            found = self._redis.get(_name(tenant_id, place))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis did not answer: {error}") from error
        return bytes(found) if isinstance(found, bytes) else None

    def put(self, tenant_id: UUID, place: int, value: bytes) -> None:
        """Keep it there; one that is too long is not kept. Raises BrokerUnavailable."""
        if len(value) > MAX_VALUE:
            return
        try:
            self._redis.set(_name(tenant_id, place), value, px=max(1, int(self.keep_s * 1000)))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis took no value: {error}") from error

    def clear(self, tenant_id: UUID) -> int:
        """Empty all places of a tenant; returns how many held something. Raises BrokerUnavailable."""
        try:
            return int(self._redis.unlink(*(_name(tenant_id, place) for place in range(self.places))))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis did not answer: {error}") from error

    def close(self) -> None:
        """Close its connections."""
        self._redis.close()


def _name(tenant_id: UUID, place: int) -> str:
    return f"citadel:answer:{tenant_id}:{place}"
