"""How much of the judged text came back, and how much else: precision, recall and IoU counted in characters.

The method of Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma, 2024), as their program
computes it: what was found is the union of the overlaps of passages with judged spans; precision divides it by the
passages' lengths, recall by the spans' lengths, and IoU by the passages' lengths and what of the spans was missed.
Lengths are summed, so that a text which comes twice is paid for twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.records import Place

Interval = tuple[int, int]  # half-open

NAMES = ("SpanP", "SpanR", "SpanIoU")


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Of one question's passages, each from 0 to 1."""

    precision: float
    recall: float
    iou: float


def span_scores(passages: Sequence[Place], judged: Sequence[Place]) -> SpanScores:
    """The passages against the judged spans, of which there is at least one. An empty answer scores 0."""
    documents = {place.external_id for place in judged}
    found = missed = 0
    for name in documents:
        spans = [(place.start, place.end) for place in judged if place.external_id == name]
        covered = union((place.start, place.end) for place in passages if place.external_id == name)
        found += _length(union(overlap for span in spans for overlap in _overlaps(span, covered)))
        missed += sum(end - start - _length(_overlaps((start, end), covered)) for start, end in spans)
    returned = sum(place.end - place.start for place in passages)
    wanted = sum(place.end - place.start for place in judged)
    return SpanScores(found / returned if returned else 0.0, found / wanted, found / (returned + missed))


def span_values(passages: Sequence[Place], judged: Sequence[Place], cutoffs: Iterable[int]) -> Mapping[str, float]:
    """By name and cutoff, such as `SpanIoU@5`; a cutoff counts passages."""
    values: dict[str, float] = {}
    for cutoff in cutoffs:
        scores = span_scores(passages[:cutoff], judged)
        values |= zip(
            (f"{name}@{cutoff}" for name in NAMES), (scores.precision, scores.recall, scores.iou), strict=True
        )
    return values


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same places as intervals that do not meet, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _overlaps(span: Interval, covered: Sequence[Interval]) -> list[Interval]:
    cut = [(max(span[0], start), min(span[1], end)) for start, end in covered]
    return [(start, end) for start, end in cut if start < end]


def _length(intervals: Iterable[Interval]) -> int:
    return sum(end - start for start, end in intervals)
