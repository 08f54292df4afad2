"""Markdown: the canonical text is the author's own; markdown-it says where its headings, lists, tables and code lie.

Front matter is read by `ingest/rules.py` and left out here, and so is what a rendered page does not show: comments,
scripts and styles.
"""

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.records import Element, ParsedDocument
from ingest.parsers.canonical import clean, one_line, overlay
from ingest.parsers.decode import decode
from ingest.parsers.front import front_matter_end

_HIDDEN_BLOCK = re.compile(r"\s*<(?:!--|script\b|style\b)", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ITEM_MARK = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)])(?=[ \t])")


def parse_markdown(content: bytes) -> ParsedDocument:
    """The text without front matter and hidden parts; headings with levels, list items, tables, whole code blocks."""
    decoded = decode(content)
    cleaned = clean(decoded.text)
    front = front_matter_end(cleaned.text)
    body = cleaned.without([(0, front)]) if front else cleaned
    cuts = _hidden_parts(body.text)
    shown = body.without(cuts)
    warnings = decoded.warnings
    if cuts:
        warnings = (*warnings, "comments, scripts or styles were left out: a rendered page does not show them")
    elements = list(_elements(shown.text, _tokens(shown.text)))
    return overlay(shown, elements, "text/markdown", None, warnings)


def _tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def _line_starts(text: str) -> list[int]:
    """The offset of every line, and one past the end."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return [*starts, len(text)]


def _hidden_parts(text: str) -> list[tuple[int, int]]:
    """The spans of HTML comments, scripts and styles, in order; not where they stand in code."""
    if "<" not in text:
        return []
    starts = _line_starts(text)
    cuts: list[tuple[int, int]] = []
    for token in _tokens(text):
        if token.map is None:
            continue
        first, last = starts[token.map[0]], starts[token.map[1]]
        if token.type == "html_block" and _HIDDEN_BLOCK.match(token.content):
            comment = _COMMENT.match(text, first + len(text[first:last]) - len(text[first:last].lstrip()))
            cuts.append((first, comment.end() if comment else last))
        elif token.type == "inline":
            cuts += _inline_comments(text, first, token)
    return [cut for before, cut in zip([(0, 0), *cuts], cuts, strict=False) if cut[0] >= before[1]]


def _inline_comments(text: str, start: int, token: Token) -> Iterator[tuple[int, int]]:
    """The spans of the comments in a line of text; its code is stepped over, which may quote one."""
    for child in token.children or ():
        if child.type in ("html_inline", "code_inline"):
            found = text.find(child.content, start)
            if found >= 0:
                start = found + len(child.content)
                if child.type == "html_inline" and child.content.startswith("<!--"):
                    yield found, start


def _elements(text: str, tokens: Sequence[Token]) -> Iterator[Element]:
    """One element for each leaf block, in order; the first paragraph of a list item is the item."""
    starts = _line_starts(text)
    item_lines: set[int] = set()
    for position, token in enumerate(tokens):
        if token.map is None:
            continue
        first, last = token.map
        start, end = _trimmed(text, starts[first], starts[last])
        if token.type == "list_item_open":
            item_lines.add(first)
        elif token.type == "heading_open" and token.level == 0 and tokens[position + 1].content.strip():
            yield _heading(text, start, end, int(token.tag[1]), tokens[position + 1].content)
        elif token.type in ("paragraph_open", "heading_open") and start < end:  # a heading in a quote is not ours
            is_item = first in item_lines and _ITEM_MARK.match(text, start)
            yield Element("list_item" if is_item else "paragraph", start, end)
        elif token.type in ("fence", "code_block"):
            yield Element("code", starts[first], end)
        elif token.type == "table_open":
            yield Element("table", start, end, context=one_line(text[start : text.find("\n", start)]))
        elif token.type == "html_block" and start < end:
            yield Element("paragraph", start, end)


def _heading(text: str, start: int, end: int, level: int, content: str) -> Element:
    """The words of a heading without its marks; the whole line where the words are not found as they stand."""
    found = text.find(content, start, end) if content else -1
    if found < 0:
        return Element("heading", start, end, level)
    return Element("heading", found, found + len(content), level)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends; empty at `start` when there is nothing else."""
    raw = text[start:end]
    leading = len(raw) - len(raw.lstrip())
    return (start + leading, start + len(raw.rstrip())) if raw.strip() else (start, start)
