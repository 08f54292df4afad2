"""What a collection's measures rank, and what of it is relevant: documents, or passages that overlap judged spans."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.records import Place
from eval.golden import GoldenQuery, GoldenSet

Unit = Literal["document", "passage"]


@dataclass(frozen=True, slots=True)
class Judged:
    """The grades of a golden set in one index.

    By documents, as BEIR does it: a document ranks where its best passage does, and counts once. By passages: a
    chunk of the index is relevant when it shares at least one character with a judged span of its document, and has
    the best grade of those it touches; the ideal ranking holds every such chunk of the index. So a figure by passages
    belongs to one chunking, and compares what ranks the same chunks.
    """

    unit: Unit
    grades: Mapping[str, Mapping[str, int]]  # question id → key → grade; questions with something relevant alone

    def key(self, place: Place) -> str:
        """What is ranked of a chunk."""
        return place.external_id if self.unit == "document" else f"{place.external_id}#{place.start}-{place.end}"

    def ranking(self, places: Iterable[Place]) -> list[str]:
        """The distinct keys of passages that come best first."""
        return list(dict.fromkeys(map(self.key, places)))


def unit_of(golden: GoldenSet) -> Unit:
    """`passage` where every judgement has a span."""
    judgements = [judgement for query in golden.queries for judgement in query.relevant]
    return "passage" if judgements and all(judgement.span for judgement in judgements) else "document"


def judge(golden: GoldenSet, index: Iterable[Place]) -> Judged:
    """The golden set's grades; `index` is every chunk that its questions can find."""
    answerable = [query for query in golden.queries if query.answerable()]
    if unit_of(golden) == "document":
        return Judged("document", {query.id: query.gains() for query in answerable})
    chunks: dict[str, list[Place]] = {}
    for place in index:
        chunks.setdefault(place.external_id, []).append(place)
    found = Judged("passage", {})
    return Judged("passage", {query.id: _overlapping(found, query, chunks) for query in answerable})


def _overlapping(judged: Judged, query: GoldenQuery, chunks: Mapping[str, Sequence[Place]]) -> dict[str, int]:
    grades: dict[str, int] = {}
    for judgement in query.relevant:
        assert judgement.span is not None
        start, end = judgement.span
        for place in chunks.get(judgement.document, ()):
            if place.start < end and start < place.end:
                key = judged.key(place)
                grades[key] = max(judgement.grade, grades.get(key, 0))
    return grades
