"""The claims of an answer: its sentences, each with the citation markers that stand in it or right behind it.

No claim is what asserts nothing: a question, a heading, a line that announces a list (it ends in a colon and cites
nothing), an entry of a list of references, and what has fewer than three words and no digit, such as "Of course."
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from eval.sentences import MARKER, sentences

LEAST_WORDS = 3

_RANGE = re.compile(r"(\d+)(?:\s*[\u2013-]\s*(\d+))?")
_BULLET = re.compile(r"^\s*(?:[-*\u2022\u2013]|\d{1,2}[.)]|[a-z][.)])\s+")
_HEADING = re.compile(r"^\s*#{1,6}\s")
_RULE = re.compile(r"^[\s|:*_=-]*$")
_REFERENCES = re.compile(r"\W*(?:sources?|references|citations|quellen)\W*", re.IGNORECASE)
_ENTRY = re.compile(rf"\s*(?:[-*\u2022]\s*)?{MARKER.pattern}")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Claim:
    """What an answer asserts in one sentence."""

    text: str  # without its markers
    markers: tuple[int, ...]  # what it cites, in their order, each once
    raw: str  # as it stands in the answer


def claims_of(answer: str) -> tuple[Claim, ...]:
    """The answer's claims in its order; none of an empty answer."""
    lines = answer.splitlines()
    at = next((n for n, line in enumerate(lines) if _REFERENCES.fullmatch(line)), len(lines))
    told = lines[:at] + [line for line in lines[at + 1 :] if not _ENTRY.match(line)]
    return tuple(claim for line in told for claim in _of_line(line))


def markers_of(text: str) -> tuple[int, ...]:
    """The numbers that a text cites: "[1, 3-5]" are 1, 3, 4 and 5. A range that runs backwards is its two ends."""
    found: list[int] = []
    for group in MARKER.findall(text):
        for first, last in _RANGE.findall(group):
            start, end = int(first), int(last or first)
            found += range(start, end + 1) if start <= end else (start, end)
    return tuple(dict.fromkeys(found))


def _of_line(line: str) -> Iterator[Claim]:
    if _HEADING.match(line) or _RULE.match(line):
        return
    for raw in sentences(_BULLET.sub("", line.strip())):
        text = " ".join(MARKER.sub(" ", raw).split())
        text = re.sub(r"\s+([.,;:!?])", r"\1", text).replace("**", "")
        claim = Claim(text, markers_of(raw), raw)
        if _asserts(claim):
            yield claim


def _asserts(claim: Claim) -> bool:
    if claim.text.endswith(("?", "\uff1f")) or (claim.text.endswith(":") and not claim.markers):
        return False
    words = _WORD.findall(claim.text)
    wide = any("\u2e80" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af" for c in claim.text)  # written without spaces
    return wide or len(words) >= LEAST_WORDS or any(unicodedata.category(c) == "Nd" for c in claim.text)
