"""Where sentences end, in an answer and in a passage that it cites."""

import re
from collections.abc import Iterator

# "[1]", "[1, 2]", "[1-3]": the markers of citations.
MARKER = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;\u2013-]\s*\d{1,3})*)\s*\]")
_MARKERS = rf"(?:\s*{MARKER.pattern})*"
# The end of a sentence: its mark, closing quotes and brackets, the markers behind them, then white space or the end.
_END = re.compile(
    rf"(?:[.!?\u2026]+[\"'\u201d\u2019)]*{_MARKERS}(?=\s|$))|(?:[\u3002\uff01\uff1f]+[\u300d\u300f\uff09]*{_MARKERS})"
)
# Behind these a full stop ends no sentence.
_ABBREVIATED = (
    "mr|mrs|ms|dr|prof|nos|vs|e.g|i.e|cf|approx|fig|eq|pp|vol|inc|ltd|co|corp|jr|sr|u.s|"
    "u.k|a.m|p.m|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|bzw|z.b|d.h|nr|abs"
)
_SHORT = frozenset(_ABBREVIATED.split("|"))
_PARAGRAPH = re.compile(r"\n\s*\n")
LONG = 40  # words; a longer sentence that has lines is a table or a list


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text on one line, each with the markers right behind it."""
    start = 0
    for match in _END.finditer(text):
        if not _abbreviated(text, start, match.start()):
            yield text[start : match.end()].strip()
            start = match.end()
    if text[start:].strip():
        yield text[start:].strip()


def windows(passage: str) -> list[str]:
    """What of a passage a claim is held against: its sentences, and the rows of what has none."""
    found = []
    for paragraph in _PARAGRAPH.split(passage):
        for sentence in sentences(paragraph):
            rows = sentence.splitlines() if len(sentence.split()) > LONG else [sentence]
            found += [" ".join(row.split()) for row in rows if row.strip()]
    return found


def _abbreviated(text: str, start: int, stop: int) -> bool:
    """Whether the mark at `stop` belongs to an abbreviation or an initial, and does not end the text."""
    if text[stop] != "." or stop + 1 >= len(text.rstrip()):
        return False
    words = text[start:stop].split()
    last = words[-1].lstrip("(\"'\u201c\u2018").lower() if words else ""
    return last in _SHORT or (len(last) == 1 and last.isalpha() and last != "i")
