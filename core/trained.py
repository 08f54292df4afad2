"""A reranker that was trained, as a tenant's searches name it; what it learned lies in a folder of each host."""

from dataclasses import dataclass
from typing import Literal

RerankerKind = Literal["late", "cross-encoder"]


@dataclass(frozen=True, slots=True)
class TrainedReranker:
    """Which one, and how its score is used."""

    name: str  # of its folder, beneath the folder of rerankers
    kind: RerankerKind
    digest: str  # of its files: others under this name are not taken for it
    weight: float  # of its score against the fused one
    pool: int  # candidates that it looks at
    profile_id: int  # it was proved behind this profile's index, and is used behind no other
