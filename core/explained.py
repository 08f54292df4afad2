"""What a search tells, when asked, of each candidate near the cut."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Fate = Literal["passage", "merged", "duplicate", "over_budget", "below_cut"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A candidate's place among those of a stage, the first is 1, and its score there."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Explained:
    """A candidate: who proposed it, where each stage put it, and what became of it."""

    document_id: UUID
    external_id: str
    version: int
    start: int  # of the canonical text, in code points, half-open
    end: int
    dense: Placed | None  # None: that leg did not propose it
    lexical: Placed | None
    fused: Placed
    rerank: Placed | None  # None: not reranked
    fate: Fate  # merged: into its neighbour; duplicate: it says the same as a better one; below_cut: there was no place
    passage: int | None  # the rank of the passage that it is, is a part of, or says the same as
