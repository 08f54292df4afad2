"""What copies of a text are found by, and what is told of them."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a canonical text is compared with others by. Derived content: kept and erased with its document."""

    text_hash: bytes  # sha256
    signature: bytes | None = None  # 128 × uint32, little-endian: MinHash; None: the text is too short for it
    bands: tuple[int, ...] = ()  # int64, by which signatures that are alike are found


@dataclass(frozen=True, slots=True)
class Copies:
    """What is told of the documents that say the same as one."""

    family: UUID  # random; the same for all of them
    count: int  # of the others that the caller may see, counted up to 100
