"""What a search tells of the candidates near the cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Placed:
    """A candidate's place among those of a stage, the first is 1, and its score there."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Explained:
    """A candidate near the cut: where each stage put it, and what became of it."""

    document_id: UUID
    external_id: str
    version: int
    start: int
    end: int
    dense: Placed | None  # None: that leg did not propose it
    lexical: Placed | None
    fused: Placed
    rerank: Placed | None  # None: not reranked
    fate: str  # passage | merged | duplicate | over_budget | below_cut
    passage: int | None  # the rank of the passage that it is, is a part of, or says the same as


def explained_of(body: Mapping[str, Any]) -> Explained:
    """From one object of an answer's `explanation`."""
    return Explained(
        document_id=UUID(body["document_id"]),
        external_id=body["external_id"],
        version=int(body["version"]),
        start=int(body["start"]),
        end=int(body["end"]),
        dense=_placed_of(body["dense"]),
        lexical=_placed_of(body["lexical"]),
        fused=Placed(int(body["fused"]["rank"]), float(body["fused"]["score"])),
        rerank=_placed_of(body["rerank"]),
        fate=body["fate"],
        passage=body["passage"],
    )


def _placed_of(body: Mapping[str, Any] | None) -> Placed | None:
    return None if body is None else Placed(int(body["rank"]), float(body["score"]))
