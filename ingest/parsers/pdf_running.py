"""What repeats from page to page of a PDF: page numbers go, running headers and footers stay where they stand first."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ingest.parsers.pdf_lines import Line, hidden_free

_MARGIN = 0.12  # of the page's height, above and below; in print the margins are 8 to 11 %
_REACH = 4  # pages between two of its places; in a book they are on every second page
_LENGTH = 200  # code points
_BANDS = 50  # of the page's height; a running line stands in the same one, or in the next
_DIGITS = re.compile(r"\d{1,9}")
# 7, - 7 -, Page 7, 7 of 12, 7/12
_NUMBER = re.compile(
    r"\W*(?:(?:page|seite|página|pagina|p\.|s\.)\s*)?(\d{1,4})(?:\s*(?:/|of|von|de)\s*\d{1,4})?\W*", re.I
)
_ROMAN = re.compile(r"\W*([ivxlc]+)\W*")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}

_Place = tuple[str, int]  # a reading of a line, and its band of the page


def without_running(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages' lines without page numbers, and without what the margin of an earlier page said already."""
    margins = [[line for line in lines if _in_margin(line)] for lines in pages]
    running = _running(margins)
    numbers = _page_numbers(margins)
    said: set[str] = set()
    kept: list[list[Line]] = []
    for lines in pages:
        kept.append([])
        for line in lines:
            if line in numbers:
                continue
            readings = {reading for reading, band in _places(line) if (reading, band) in running}
            if not readings & said:
                kept[-1].append(line)
            said |= readings
    return kept


def _in_margin(line: Line) -> bool:
    return len(line.text) <= _LENGTH and bool(line.height) and not _MARGIN <= line.margin <= 1 - _MARGIN


def _places(line: Line) -> list[_Place]:
    """The line as it is, and with a number that may be the page's as how far that is ahead of the page."""
    if not _in_margin(line):
        return []
    text, band = hidden_free(line.text), int(line.margin * _BANDS)
    found = list(_DIGITS.finditer(text))
    counted = [
        text[: n.start()] + f"#{int(n.group()) - line.page}" + text[n.end() :] for n in (*found[:1], *found[-1:])
    ]
    return [(reading, band) for reading in (text, *counted)]


def _running(margins: Sequence[Sequence[Line]]) -> set[_Place]:
    """The places of lines that stand at one height on at least three pages near each other."""
    pages: dict[_Place, list[int]] = defaultdict(list)
    for line in (line for lines in margins for line in lines):
        for reading, band in _places(line):
            for near in (band - 1, band, band + 1):
                pages[reading, near].append(line.page)
    return {place for place, on in pages.items() if any(character.isalpha() for character in place[0]) and _runs(on)}


def _runs(pages: Iterable[int]) -> bool:
    """Whether some three pages follow each other within reach."""
    ordered = sorted(set(pages))
    return any(
        third - second <= _REACH and second - first <= _REACH
        for first, second, third in zip(ordered, ordered[1:], ordered[2:], strict=False)
    )


def _page_numbers(margins: Sequence[Sequence[Line]]) -> set[Line]:
    """The lines that hold a number alone which counts along with the pages."""
    counting: dict[tuple[int, bool, int], list[Line]] = defaultdict(list)
    for line in (line for lines in margins for line in lines):
        for roman, number in _numbers(line):
            counting[number - line.page, roman, line.margin < 0.5].append(line)
    return {
        line
        for (ahead, roman, _), lines in counting.items()
        if _runs(line.page for line in lines) or (ahead == 0 and not roman)
        for line in lines
    }


def _numbers(line: Line) -> list[tuple[bool, int]]:
    """(whether it is Roman, value) of a line that is nothing but a number; several where it can be read as either."""
    text = hidden_free(line.text).strip()
    if found := _NUMBER.fullmatch(text):
        return [(False, int(found.group(1)))]
    if found := _ROMAN.fullmatch(text.lower()):
        values = [_ROMAN_VALUES[letter] for letter in found.group(1)]
        pairs = zip(values, [*values[1:], 0], strict=True)
        return [(True, sum(-value if value < following else value for value, following in pairs))]
    return []
