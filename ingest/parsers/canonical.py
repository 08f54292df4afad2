"""The one place where a canonical text is put together, so that every element is exactly its span of it."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from core.errors import EmptyDocument
from core.flags import Flag
from core.records import Element, ElementKind, ParsedDocument

MAX_TITLE = 300  # code points; a longer "title" is a paragraph that somebody styled as one

_NEWLINES = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, lone surrogates, non-characters, soft hyphens and byte order marks: they show nothing and mean nothing.
_NOISE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]")
# What hides or reorders text from a human reader but not from a model: zero-width spaces, word joiners, marks and
# overrides of direction, and the tag characters U+E0000 that spell invisible ASCII.
_INVISIBLE = re.compile("[\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]")
# Joiners shape Persian, Indic scripts and emoji; after an ASCII or Latin letter they only hide.
_IDLE_JOINER = re.compile("(?<![\u0590-\U0010ffff])[\u200c\u200d]+")
# Around what a reader of the file does not see, in the text of a piece. Unicode has promised never to use them, and a
# parser takes them out of what it reads before it sets its own (`unmarked`).
HIDDEN_START, HIDDEN_END = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"([{HIDDEN_START}{HIDDEN_END}])")


@dataclass(frozen=True, slots=True)
class Piece:
    """A structural part as a parser hands it over, before it has a place in the canonical text."""

    kind: ElementKind
    text: str
    level: int = 0  # headings: 1 is the topmost
    page: int | None = None
    context: str = ""
    row: int | None = None  # of a sheet, of its first line
    doubtful: tuple[tuple[int, int], ...] = ()  # spans of a clean text that may be read wrong


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Text as it may stand in a canonical text, and where invisible characters were taken out of it."""

    text: str
    invisible: tuple[int, ...] = ()  # an offset for each of them

    def without(self, cuts: Sequence[tuple[int, int]]) -> "Cleaned":
        """The text without these spans, which are in order and apart."""
        kept: list[str] = []
        offsets: list[int] = []
        start = gone = 0
        for first, last in [*cuts, (len(self.text), len(self.text) + 1)]:
            kept.append(self.text[start:first])
            inside = slice(bisect_left(self.invisible, start), bisect_right(self.invisible, first))
            offsets += [at - gone for at in self.invisible[inside]]
            start, gone = last, gone + last - first
        return Cleaned("".join(kept), tuple(offsets))


def clean(text: str) -> Cleaned:
    """Newlines as \\n, no controls but tab and newline, nothing invisible, NFC; idempotent."""
    text = _NOISE.sub("", _NEWLINES.sub("\n", text))
    if text.isascii():
        return Cleaned(text)
    text = unicodedata.normalize("NFC", text)
    offsets: list[int] = []
    for unseen in (_INVISIBLE, _IDLE_JOINER):
        text, found = _taken_out(text, unseen)
        offsets += found
    # Again: what was taken out may have stood between a letter and its accent.
    text = unicodedata.normalize("NFC", text)
    return Cleaned(text, tuple(sorted(min(offset, len(text)) for offset in offsets)))


def _taken_out(text: str, unseen: re.Pattern[str]) -> tuple[str, list[int]]:
    """The text without what matches, and where each of its characters stood in what is left."""
    kept: list[str] = []
    offsets: list[int] = []
    position = gone = 0
    for found in unseen.finditer(text):
        kept.append(text[position : found.start()])
        offsets += [found.start() - gone] * (found.end() - found.start())
        gone += found.end() - found.start()
        position = found.end()
    return ("".join(kept) + text[position:], offsets) if offsets else (text, offsets)


def unmarked(text: str) -> str:
    """The text without the marks that only a parser may set."""
    return _MARK.sub("", text)


def hidden(text: str) -> str:
    """The text, marked as what a reader of the file does not see."""
    return f"{HIDDEN_START}{unmarked(text)}{HIDDEN_END}" if text.strip() else text


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
    flags: list[Flag] = []
    position, invisible = 0, 0
    for piece in pieces:
        shown = _show(piece)
        invisible += len(shown.invisible)
        if not shown.text:
            continue
        gap = _gap(elements[-1] if elements else None, piece)
        start = position + len(gap)
        position = start + len(shown.text)
        texts += (gap, shown.text)
        elements.append(
            Element(piece.kind, start, position, piece.level, piece.page, one_line(piece.context), piece.row)
        )
        if shown.hidden or shown.invisible:
            flags += _flags(shown, start)
        flags += [Flag("doubtful_reading", start + first, start + last) for first, last in piece.doubtful]
    return _document("".join(texts), elements, flags, mime_type, (title, warnings, invisible))


@dataclass(frozen=True, slots=True)
class _Shown:
    """A piece's text as it stands in the canonical text; offsets are its own."""

    text: str
    invisible: tuple[int, ...]
    hidden: tuple[tuple[int, int], ...]


def _show(piece: Piece) -> _Shown:
    """The piece's text clean, without blanks at its ends, and what of it its parser marked as hidden."""
    marked = HIDDEN_START in piece.text
    cleaned = clean(piece.text)
    blanks = "\n" if piece.kind == "code" else None
    text = cleaned.text.strip(blanks)
    if not text.strip():
        return _Shown("", cleaned.invisible, ())
    lead = len(cleaned.text) - len(cleaned.text.lstrip(blanks))
    end = len(text)
    spans = ((min(max(a - lead, 0), end), min(b - lead, end)) for a, b in (_marked(piece.text) if marked else ()))
    return _Shown(
        text,
        tuple(min(max(offset - lead, 0), end) for offset in cleaned.invisible),
        tuple((first, last) for first, last in spans if first < last),
    )


def _marked(text: str) -> Iterator[tuple[int, int]]:
    """The spans between the marks, as offsets into the clean text."""
    position, depth = 0, 0
    for part in _MARK.split(text):
        if part in (HIDDEN_START, HIDDEN_END):
            depth = max(0, depth + (1 if part == HIDDEN_START else -1))
            continue
        end = position + len(clean(part).text)
        if depth and end > position:
            yield position, end
        position = end


def _flags(shown: _Shown, start: int) -> Iterator[Flag]:
    """A piece's flags on the canonical text, in which it begins at `start`."""
    for first, last in shown.hidden:
        yield Flag("hidden_text", start + first, start + last)
    yield from _where_invisible([start + offset for offset in shown.invisible], start, start + len(shown.text))


def _where_invisible(offsets: Sequence[int], least: int, end: int) -> Iterator[Flag]:
    """A flag over the characters beside each place where something invisible was taken out, in order."""
    for offset in dict.fromkeys(offsets):
        yield Flag("invisible_characters", max(least, min(offset, end) - 1), min(end, max(offset, least) + 1))


def overlay(
    text: Cleaned, elements: Sequence[Element], mime_type: str, title: str | None = None, warnings: Sequence[str] = ()
) -> ParsedDocument:
    """A text that is kept as it is written, with elements that lie on it; raises EmptyDocument when it is blank."""
    flags = list(_where_invisible(text.invisible, 0, len(text.text)))
    return _document(text.text, elements, flags, mime_type, (title, warnings, len(text.invisible)))


def add_warnings(document: ParsedDocument, *warnings: str) -> ParsedDocument:
    """The document with more to say about it."""
    return replace(document, warnings=(*document.warnings, *warnings))


def _gap(before: Element | None, piece: Piece) -> str:
    if before is None:
        return ""
    same_list = before.kind == piece.kind == "list_item" and before.page == piece.page
    return "\n" if same_list else "\n\n"


def _document(
    text: str,
    elements: Sequence[Element],
    flags: Sequence[Flag],
    mime_type: str,
    about: tuple[str | None, Sequence[str], int],
) -> ParsedDocument:
    title, warnings, invisible = about
    if not text.strip():
        notes = "".join(f"; {warning}" for warning in warnings[:3])
        raise EmptyDocument(f"the file holds no text; pictures and embedded files are not read{notes}")
    if invisible:
        warnings = (*warnings, f"{invisible} invisible characters were removed")
    if any(flag.kind == "hidden_text" for flag in flags):
        warnings = (*warnings, "some of the text is not seen by a reader of the file; passages with it are flagged")
    found = _title(title, text, elements)
    return ParsedDocument(text, tuple(elements), mime_type, found, tuple(warnings), _merged(flags))


def _merged(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """The flags by kind and place, those of a kind that touch as one."""
    merged: list[Flag] = []
    for flag in sorted(flags, key=lambda flag: (flag.kind, flag.start)):
        last = merged[-1] if merged else None
        if last and last.kind == flag.kind and flag.start <= last.end + 1:
            merged[-1] = replace(last, end=max(last.end, flag.end))
        else:
            merged.append(flag)
    return tuple(sorted(merged, key=lambda flag: (flag.start, flag.kind)))


def _title(given: str | None, text: str, elements: Sequence[Element]) -> str | None:
    """The title given, else the first heading of the topmost level; None when there is neither."""
    headings = [element for element in elements if element.kind == "heading"]
    first = min(headings, key=lambda heading: heading.level, default=None)
    title = one_line(given or "") or (one_line(text[first.start : first.end]) if first else "")
    return title[:MAX_TITLE] or None
