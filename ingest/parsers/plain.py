"""Plain text and JSON: text/plain, reStructuredText and Org keep every character where the author put it."""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from core.errors import CorruptDocument, ParserLimit
from core.records import Element, ParsedDocument
from ingest.parsers.canonical import Cleaned, Piece, add_warnings, assemble, clean, overlay
from ingest.parsers.decode import decode

_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_ORG_HEADING = re.compile(r"^(\*+) +(\S[^\n]*)$", re.MULTILINE)
_ORG_TITLE = re.compile(r"^#\+TITLE: *(\S[^\n]*)$", re.MULTILINE | re.IGNORECASE)
# A line of text over a line of one repeated mark at least as long; optionally the same mark above.
_RST_HEADING = re.compile(r"^(?:([=\-~^\"'`#*+]{3,})\n)?(\S[^\n]*)\n(([=\-~^\"'`#*+])\4{2,})$", re.MULTILINE)


def parse_text(content: bytes) -> ParsedDocument:
    """Paragraphs of a plain text; the canonical text is the file's own."""
    decoded = decode(content)
    text = clean(decoded.text)
    return overlay(text, list(paragraphs(text.text, 0, len(text.text))), "text/plain", None, decoded.warnings)


def paragraphs(text: str, start: int, end: int) -> Iterator[Element]:
    """The runs of non-blank lines of text[start:end]."""
    for found in _PARAGRAPH.finditer(text, start, end):
        raw = found.group()
        yield Element(
            "paragraph", found.start() + len(raw) - len(raw.lstrip()), found.end() - len(raw) + len(raw.rstrip())
        )


def parse_org(content: bytes) -> ParsedDocument:
    """An Org file: stars are headings, the rest is paragraphs."""
    decoded = decode(content)
    text = clean(decoded.text)
    headings = [
        Element("heading", found.start(2), found.end(2), level=len(found.group(1)))
        for found in _ORG_HEADING.finditer(text.text)
    ]
    title = _ORG_TITLE.search(text.text)
    elements = _between(text, headings, [(found.start(), found.end()) for found in _ORG_HEADING.finditer(text.text)])
    return overlay(text, elements, "text/org", title.group(1) if title else None, decoded.warnings)


def parse_rst(content: bytes) -> ParsedDocument:
    """A reStructuredText file: underlined lines are headings, in the order in which their marks first appear."""
    decoded = decode(content)
    text = clean(decoded.text)
    levels: dict[tuple[bool, str], int] = {}
    headings, spans = [], []
    for found in _RST_HEADING.finditer(text.text):
        title = found.group(2).rstrip()
        if len(found.group(3)) < len(title):
            continue  # an underline shorter than its text is no heading
        level = levels.setdefault((bool(found.group(1)), found.group(4)), len(levels) + 1)
        headings.append(Element("heading", found.start(2), found.start(2) + len(title), level))
        spans.append(found.span())
    return overlay(text, _between(text, headings, spans), "text/x-rst", None, decoded.warnings)


def _between(text: Cleaned, headings: list[Element], spans: list[tuple[int, int]]) -> list[Element]:
    """The headings with the paragraphs between them; `spans` are the headings with their marks."""
    elements: list[Element] = []
    position = 0
    for heading, (start, end) in zip(headings, spans, strict=True):
        elements += [*paragraphs(text.text, position, start), heading]
        position = end
    return [*elements, *paragraphs(text.text, position, len(text.text))]


def parse_json(content: bytes) -> ParsedDocument:
    """Every value on a line of its own behind its path, so that a passage says what it holds without its neighbours.

    Raises CorruptDocument when it is not valid JSON, ParserLimit when it is nested deeper than Python goes.
    """
    decoded = decode(content)
    return add_warnings(_flattened([decoded.text], "application/json"), *decoded.warnings)


def parse_json_lines(content: bytes) -> ParsedDocument:
    """One JSON value a line, each a record of its own; raises as parse_json does."""
    decoded = decode(content)
    lines = [line for line in decoded.text.split("\n") if line.strip()]
    return add_warnings(_flattened(lines, "application/x-ndjson"), *decoded.warnings)


def _flattened(texts: list[str], mime_type: str) -> ParsedDocument:
    try:
        values = [_loads(text) for text in texts]
        return assemble(_records(values[0] if mime_type == "application/json" else values), mime_type)
    except RecursionError as error:
        raise ParserLimit("the JSON is nested too deeply to read; flatten it") from error


def _loads(text: str) -> Any:
    """Numbers stay as they are written: no digit is lost, and a number of a million digits costs nothing."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise CorruptDocument(f"not valid JSON: {error}") from error


def _records(value: Any) -> Iterator[Piece]:
    """A paragraph for each record of a list or compound field of an object, and one for plain fields in a row."""
    if isinstance(value, list):
        members: list[tuple[str, Any]] = [(f"[{position}]", item) for position, item in enumerate(value)]
    else:
        members = list(value.items()) if isinstance(value, dict) else [("", value)]
    for _, group in groupby(members, key=lambda member: member[0] if isinstance(member[1], dict | list) else ""):
        yield Piece("paragraph", "\n".join(line for name, item in group for line in _leaves(item, name)))


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for position, item in enumerate(value):
            yield from _leaves(item, f"{path}[{position}]")
    else:
        yield f"{path}: {_leaf(value)}" if path else _leaf(value)


def _leaf(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)
