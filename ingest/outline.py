"""What lies where in a parsed text: its parts in order, each under its headings."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.records import Element, ElementKind, ParsedDocument

MAX_TITLE = 200  # code points of a heading's title; what is longer is a paragraph that a parser took for a heading

_HASHES = re.compile(r"^#{1,6} | #+$")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading that encloses parts."""

    title: str
    level: int
    start: int


@dataclass(frozen=True, slots=True)
class Part:
    """An element, widened to the marks that stand on its own lines (`## `, `- `); no white space at its ends."""

    kind: ElementKind
    start: int
    end: int
    headings: tuple[Heading, ...]  # outermost first; of a heading: itself last
    page: int | None
    context: str
    row: int | None  # of a sheet, of its first line
    own: tuple[int, int] | None  # the element itself, to which its page belongs; None where no element holds the text


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span lies."""

    page_start: int | None
    page_end: int | None
    headings: tuple[Heading, ...]  # those that enclose all of its text
    contexts: tuple[str, ...]  # those of its parts, without repeats


def outline(parsed: ParsedDocument) -> tuple[Part, ...]:
    """The document's parts in order. Together they hold every character of the text that is not white space."""
    parts: list[Part] = []
    headings: tuple[Heading, ...] = ()
    for element, is_own, start, end in _covering(parsed):
        span = trim(parsed.text, start, end)
        if span is None:
            continue
        if element.kind == "heading":
            level = max(element.level, 1)
            title = heading_title(parsed.text[element.start : element.end])
            headings = (*(heading for heading in headings if heading.level < level), Heading(title, level, span[0]))
        own = trim(parsed.text, element.start, element.end) if is_own else None
        parts.append(Part(element.kind, *span, headings, element.page, element.context, element.row, own))
    return tuple(parts)


def trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space at its ends; None when there is nothing else in it."""
    raw = text[start:end]
    left = len(raw) - len(raw.lstrip())
    return (start + left, start + len(raw.rstrip())) if left < len(raw) else None


def heading_title(text: str) -> str:
    """A heading's words on one line, without the `#` marks and underlines of plain markup."""
    lines = text.strip()[: 10 * MAX_TITLE].splitlines()
    if len(lines) > 1 and not lines[-1].strip("=-~^ "):
        lines.pop()
    words = " ".join(" ".join(lines).split())
    return _HASHES.sub("", words)[:MAX_TITLE].rstrip()


def locate(parts: Sequence[Part], start: int, end: int) -> Place:
    """The headings and contexts of the parts that the span touches, and the pages of the elements that it has text of.

    An unknown page stays unknown.
    """
    first = bisect_right(parts, start, key=lambda part: part.end)
    touched = parts[first : bisect_left(parts, end, key=lambda part: part.start)]
    held = [part for part in touched if part.own and part.own[0] < end and start < part.own[1]]
    pages = [part.page for part in held if part.page is not None]
    contexts = tuple(dict.fromkeys(part.context for part in touched if part.context))
    return Place(min(pages, default=None), max(pages, default=None), shared_headings(touched), contexts)


def shared_headings(parts: Sequence[Part]) -> tuple[Heading, ...]:
    """The headings over all parts that are text, or over the last part when all are headings."""
    texts = [part.headings for part in parts if part.kind != "heading"] or [part.headings for part in parts[-1:]]
    shared = texts[0] if texts else ()
    for headings in texts[1:]:
        while headings[: len(shared)] != shared:
            shared = shared[:-1]
    return shared


class SheetRows:
    """Which rows of a sheet a span holds."""

    def __init__(self, text: str, parts: Sequence[Part]) -> None:
        self._text = text
        self._parts = [part for part in parts if part.kind != "heading"]
        self._ends: dict[int, list[int]] = {}  # by a part's start: where its lines end

    def within(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last row; None where it holds anything else, or rows of more than one sheet."""
        first = bisect_right(self._parts, start, key=lambda part: part.end)
        touched = self._parts[first : bisect_left(self._parts, end, key=lambda part: part.start)]
        if any(part.row is None for part in touched) or len({part.headings for part in touched}) != 1:
            return None
        return self._row(touched[0], start), self._row(touched[-1], end - 1)

    def _row(self, part: Part, place: int) -> int:
        assert part.row is not None
        ends = self._ends.get(part.start)
        if ends is None:
            ends = [found.start() for found in re.finditer("\n", self._text[part.start : part.end])]
            self._ends[part.start] = ends
        return part.row + bisect_left(ends, max(place - part.start, 0))


def _covering(parsed: ParsedDocument) -> Iterator[tuple[Element, bool, int, int]]:
    """Each element with its span, and what no element holds: marks go with the element on their line, the rest is
    paragraphs, for which the second value is false. Raises ValueError for elements that overlap."""
    text = parsed.text
    elements = [element for element in parsed.elements if trim(text, element.start, element.end)]
    start = 0  # of the element to come, with the marks before it
    for before, after in zip((None, *elements), (*elements, None), strict=True):
        gap_start = before.end if before else 0
        gap_end = after.start if after else len(text)
        if gap_start > gap_end:
            raise ValueError(f"elements overlap or are out of order at {gap_end}: the parser is wrong")
        head, tail = _marks(text, gap_start, gap_end, before is not None)
        if before:
            yield before, True, start, head
        else:
            head = gap_start
        start = tail if after else len(text)
        page = before.page if before and after and before.page == after.page else None
        yield Element("paragraph", head, start, page=page), False, head, start


def _marks(text: str, start: int, end: int, any_before: bool) -> tuple[int, int]:
    """Where the marks of the element before a gap end, and where those of the element after it start."""
    newline = text.find("\n", start, end)
    if newline < 0:
        return (end, end) if any_before else (start, start)
    return newline, text.rfind("\n", start, end) + 1
