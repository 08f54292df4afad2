"""What the API works with: opened once at start, handed to every route."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from api.jwks import JwksCache
from ingest.room import Room
from retrieval.search import Searcher
from store.blobs import BlobStore
from store.pool import Store

USE_EVERY_S = 60.0


class Broker(Protocol):
    """What the API asks of Redis: whether it answers, and how long the queue is."""

    def queue_length(self) -> int: ...


class Uses:
    """When this process last went to note a key's use, so that a store in trouble is not asked at every call."""

    def __init__(self) -> None:
        self._asked: dict[UUID, float] = {}
        self._lock = threading.Lock()

    def due(self, key_id: UUID) -> bool:
        """Whether a minute has passed; if so, the next one begins."""
        now = time.monotonic()
        with self._lock:
            if now - self._asked.get(key_id, -USE_EVERY_S) < USE_EVERY_S:
                return False
            self._asked[key_id] = now
            return True


@dataclass(frozen=True, slots=True)
class Service:
    """The API's dependencies."""

    store: Store
    blobs: BlobStore
    searcher: Searcher
    broker: Broker
    max_body_bytes: int
    source_roots: tuple[Path, ...] = ()  # below which an operator may add folder sources
    room: Room = field(default_factory=Room)  # for more submissions
    source_urls: tuple[str, ...] = ()  # and others
    jwks: JwksCache = field(default_factory=JwksCache)
    uses: Uses = field(default_factory=Uses)
