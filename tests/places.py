"""Places for sealed values, in memory."""

from uuid import UUID


class MemoryPlaces:
    """As Redis has them, without an end in time."""

    def __init__(self, places: int = 1024) -> None:
        self.places, self.held = places, dict[tuple[UUID, int], bytes]()

    def get(self, tenant_id: UUID, place: int) -> bytes | None:
        return self.held.get((tenant_id, place))

    def put(self, tenant_id: UUID, place: int, value: bytes) -> None:
        self.held[tenant_id, place] = value

    def clear(self, tenant_id: UUID) -> int:
        gone = [key for key in self.held if key[0] == tenant_id]
        for key in gone:
            del self.held[key]
        return len(gone)
