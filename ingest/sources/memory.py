"""What the store holds of a source, as its reader may ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from store import sources
from store.blobs import BlobStore
from store.pool import Store, writing


@dataclass(frozen=True, slots=True)
class StoreMemory:
    """The memory of `ingest.source`."""

    store: Store
    blobs: BlobStore
    source_id: UUID
    state: Mapping[str, Any]

    def fingerprint(self, external_id: str) -> str | None:
        """The item's, when it was last read."""
        return self._known(external_id)[0]

    def content(self, external_id: str) -> bytes | None:
        """The bytes as they were last read. Raises BlobUnavailable."""
        key = self._known(external_id)[1]
        return None if key is None else self.blobs.get(key)

    def _known(self, external_id: str) -> tuple[str | None, str | None]:
        with writing(self.store) as conn:
            return sources.known(conn, self.source_id, external_id)


def memory_of(store: Store, blobs: BlobStore, source_id: UUID, *, forget: tuple[str, ...] = ()) -> StoreMemory:
    """What is kept of a source, without what an operator said to forget."""
    with writing(store) as conn:
        state = sources.state_of(conn, source_id)
    return StoreMemory(store, blobs, source_id, {key: value for key, value in state.items() if key not in forget})
