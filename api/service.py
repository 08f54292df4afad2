"""What the API works with: opened once at start, handed to every route."""

from dataclasses import dataclass
from typing import Protocol

from retrieval.search import Searcher
from store.blobs import BlobStore
from store.pool import Store


class Broker(Protocol):
    """What the API asks of Redis: whether it answers, and how long the queue is."""

    def queue_length(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Service:
    """The API's dependencies."""

    store: Store
    blobs: BlobStore
    searcher: Searcher
    broker: Broker
    max_body_bytes: int
