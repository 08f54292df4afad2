"""What repeats from page to page of a PDF: page numbers go, running headers and footers stay where they stand first."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from ingest.parsers.pdf_lines import Line, hidden_free

# Not told by height: in pages printed from HTML the footer follows the text, and stands anywhere.
_OUTERMOST = 4  # lines from an edge of the page that may be running ones
_REACH = 4  # pages between two of a line's places; in a book it is on every second page
# Pages on which it stands in a row, or half of a short file's: the head of a table that goes on stands on 2 to 5.
_LEAST, _MOST = 3, 8
_LENGTH = 200  # code points
_DIGITS = re.compile(r"\d{1,9}")
# 7, - 7 -, Page 7, 7 of 12, 7/12
_NUMBER = re.compile(
    r"\W*(?:(?:page|seite|página|pagina|p\.|s\.)\s*)?(\d{1,4})(?:\s*(?:/|of|von|de)\s*\d{1,4})?\W*", re.I
)
_ROMAN = re.compile(r"\W*([ivxlc]+)\W*")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}

_Place = tuple[str, bool]  # a reading of a line, and whether it stands at the head of its page


def without_running(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages' lines without page numbers, and without what the edge of an earlier page said already."""
    edges = [(edge, at_head) for lines in pages for edge, at_head in _edges(lines)]
    least = max(_LEAST, min(_MOST, len(pages) // 2))
    running = _repeated(edges, least)
    said: set[str] = set()
    gone: set[int] = set()  # lines by identity: a page may hold two alike
    for edge, at_head in edges:
        for line in edge:
            readings = {reading for reading in _readings(line) if (reading, at_head) in running}
            if not readings:
                break
            if readings & said or _number(line):
                gone.add(id(line))
            said |= readings
    return [[line for line in lines if id(line) not in gone] for lines in pages]


def _edges(lines: Sequence[Line]) -> Iterator[tuple[list[Line], bool]]:
    """The outermost lines of a page, from its head down and from its foot up."""
    placed = sorted((line for line in lines if line.height), key=lambda line: line.margin)
    yield placed[: -_OUTERMOST - 1 : -1], True
    yield placed[:_OUTERMOST], False


def _readings(line: Line) -> list[str]:
    """The line as it is, and with a number that may be its page's as how far that is ahead of the page."""
    text = hidden_free(line.text)
    if len(text) > _LENGTH:
        return []
    if number := _number(line):
        return [f"#{'roman' if number[0] else ''}{number[1] - line.page}"]
    found = list(_DIGITS.finditer(text))
    counted = [
        text[: n.start()] + f"#{int(n.group()) - line.page}" + text[n.end() :] for n in (*found[:1], *found[-1:])
    ]
    return [text, *counted]


def _repeated(edges: Iterable[tuple[Sequence[Line], bool]], least: int) -> set[_Place]:
    """The readings that stand at the same edge of enough pages near each other; of page numbers three are enough."""
    pages: dict[_Place, set[int]] = defaultdict(set)
    for edge, at_head in edges:
        for line in edge:
            for reading in _readings(line):
                pages[reading, at_head].add(line.page)
    return {
        place
        for place, on in pages.items()
        if _longest_run(on) >= (_LEAST if place[0].startswith("#") else least) or place == ("#0", False)
    }


def _longest_run(pages: Iterable[int]) -> int:
    """How many of the pages follow each other within reach."""
    longest = run = 1
    for before, after in pairwise(sorted(pages)):
        run = run + 1 if after - before <= _REACH else 1
        longest = max(longest, run)
    return longest


def _number(line: Line) -> tuple[bool, int] | None:
    """(whether it is Roman, its value) of a line that is nothing but a number."""
    text = hidden_free(line.text).strip()
    if found := _NUMBER.fullmatch(text):
        return False, int(found.group(1))
    if found := _ROMAN.fullmatch(text.lower()):
        values = [_ROMAN_VALUES[letter] for letter in found.group(1)]
        pairs = zip(values, [*values[1:], 0], strict=True)
        return True, sum(-value if value < following else value for value, following in pairs)
    return None
