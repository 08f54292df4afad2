"""The one place where a canonical text is put together, so that every element is exactly its span of it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.errors import EmptyDocument
from core.records import Element, ElementKind, ParsedDocument

MAX_TITLE = 300  # code points; a longer "title" is a paragraph that somebody styled as one

_NEWLINES = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, lone surrogates, non-characters, soft hyphens and byte order marks: they show nothing and mean nothing.
_NOISE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\ud800-\udfff\ufeff\ufffe\uffff]")
# What hides or reorders text from a human reader but not from a model: zero-width spaces, word joiners, marks and
# overrides of direction, and the tag characters U+E0000 that spell invisible ASCII.
_INVISIBLE = re.compile("[\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]")
# Joiners shape Persian, Indic scripts and emoji; after an ASCII or Latin letter they only hide.
_IDLE_JOINER = re.compile("(?<![\u0590-\U0010ffff])[\u200c\u200d]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A structural part as a parser hands it over, before it has a place in the canonical text."""

    kind: ElementKind
    text: str
    level: int = 0  # headings: 1 is the topmost
    page: int | None = None
    context: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Text as it may stand in a canonical text, and how many invisible characters were taken out of it."""

    text: str
    invisible: int


def clean(text: str) -> Cleaned:
    """Newlines as \\n, no controls but tab and newline, nothing invisible, NFC; idempotent."""
    text = _NOISE.sub("", _NEWLINES.sub("\n", text))
    invisible = 0
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text, first = _INVISIBLE.subn("", text)
        text, second = _IDLE_JOINER.subn("", text)
        invisible = first + second
        text = unicodedata.normalize(
            "NFC", text
        )  # again: what was taken out may have stood between a letter and its accent
    return Cleaned(text, invisible)


def one_line(text: str) -> str:
    """Clean text with every run of white space as one space."""
    return " ".join(clean(text).text.split())


def assemble(
    pieces: Iterable[Piece], mime_type: str, title: str | None = None, warnings: Sequence[str] = ()
) -> ParsedDocument:
    """The canonical text of the pieces in order: list items in a row are a line apart, everything else a blank line.

    Raises EmptyDocument when no piece holds text.
    """
    texts: list[str] = []
    elements: list[Element] = []
    position, invisible = 0, 0
    for piece in pieces:
        cleaned = clean(piece.text)
        text = cleaned.text.strip("\n") if piece.kind == "code" else cleaned.text.strip()
        invisible += cleaned.invisible
        if not text.strip():
            continue
        gap = _gap(elements[-1] if elements else None, piece)
        start = position + len(gap)
        position = start + len(text)
        texts += (gap, text)
        elements.append(Element(piece.kind, start, position, piece.level, piece.page, one_line(piece.context)))
    return _document("".join(texts), elements, mime_type, title, warnings, invisible)


def overlay(
    text: Cleaned, elements: Sequence[Element], mime_type: str, title: str | None = None, warnings: Sequence[str] = ()
) -> ParsedDocument:
    """A text that is kept as it is written, with elements that lie on it; raises EmptyDocument when it is blank."""
    return _document(text.text, elements, mime_type, title, warnings, text.invisible)


def add_warnings(document: ParsedDocument, *warnings: str) -> ParsedDocument:
    """The document with more to say about it."""
    return replace(document, warnings=(*document.warnings, *warnings))


def _gap(before: Element | None, piece: Piece) -> str:
    if before is None:
        return ""
    same_list = before.kind == piece.kind == "list_item" and before.page == piece.page
    return "\n" if same_list else "\n\n"


def _document(
    text: str, elements: Sequence[Element], mime_type: str, title: str | None, warnings: Sequence[str], invisible: int
) -> ParsedDocument:
    if not text.strip():
        notes = "".join(f"; {warning}" for warning in warnings[:3])
        raise EmptyDocument(f"the file holds no text; pictures and embedded files are not read{notes}")
    if invisible:
        warnings = (*warnings, f"{invisible} invisible characters were removed")
    return ParsedDocument(text, tuple(elements), mime_type, _title(title, text, elements), tuple(warnings))


def _title(given: str | None, text: str, elements: Sequence[Element]) -> str | None:
    """The title given, else the first heading of the topmost level; None when there is neither."""
    headings = [element for element in elements if element.kind == "heading"]
    first = min(headings, key=lambda heading: heading.level, default=None)
    title = one_line(given or "") or (one_line(text[first.start : first.end]) if first else "")
    return title[:MAX_TITLE] or None
