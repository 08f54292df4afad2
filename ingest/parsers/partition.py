"""What `unstructured` and HTML tables give, as pieces of a canonical text."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lxml import etree, html  # type: ignore[import-untyped]
from unstructured.documents.elements import CodeSnippet, Footer, Header, ListItem, PageBreak, Table, Title
from unstructured.documents.elements import Element as Part

from ingest.parsers.canonical import Piece

MAX_SPAN = 200  # columns or rows that one cell may take; a small file can claim millions
_BLOCKS = frozenset(("address", "article", "blockquote", "br", "dd", "div", "dl", "dt", "hr", "li", "ol", "p", "pre"))
_BLOCKS |= frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "section", "table", "td", "tr", "ul"))


def pieces_of(parts: Iterable[Part], paged: bool = False) -> Iterator[Piece]:
    """The pieces of a partitioned document; a running header or footer once, however often it is repeated."""
    running: set[str] = set()
    for part in parts:
        page = part.metadata.page_number if paged else None
        depth = part.metadata.category_depth
        if isinstance(part, PageBreak):
            continue
        if isinstance(part, Header | Footer):
            if part.text in running:
                continue
            running.add(part.text)
        if isinstance(part, Table):
            yield table_part(part, page)
        elif isinstance(part, Title) and depth is not None:
            yield Piece("heading", " ".join(part.text.split()), level=depth + 1, page=page)
        elif isinstance(part, ListItem):
            yield Piece("list_item", part.text, page=page)
        else:
            yield Piece("code" if isinstance(part, CodeSnippet) else "paragraph", part.text, page=page)


def table_part(part: Table, page: int | None) -> Piece:
    """A table by its rows; as one run of text where its grid is too large or broken, so that cells are missing."""
    markup = part.metadata.text_as_html
    rows = grid(html.fragment_fromstring(markup)) if markup else []
    if sum(len(cell.split()) for row in rows for cell in row) < len(part.text.split()):
        return Piece("paragraph", part.text, page=page)
    return table_piece(rows, page=page)


def table_piece(
    rows: Iterable[Sequence[str]], page: int | None = None, header: bool = True, row: int | None = None
) -> Piece:
    """A table as lines of cells between bars; with `header`, its first row is the context of each piece of it."""
    lines = [line for line in map(row_line, rows) if line]
    context = lines[0] if header and len(lines) > 1 else ""
    return Piece("table", "\n".join(lines), page=page, context=context, row=row)


def row_line(cells: Sequence[str]) -> str:
    """One row on one line; empty cells at its end are left out."""
    texts = [" ".join(cell.split()) for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts).strip()


def grid(table: Any) -> list[list[str]]:
    """The cell texts of an HTML table element by row and column; a cell over several rows stands in each of them."""
    rows: list[list[str]] = []
    hanging: dict[int, tuple[int, str]] = {}  # column → (rows left, text)
    for row in table.iter("tr"):
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            _hang(cells, hanging)
            text, down = cell_text(cell), _span(cell, "rowspan")
            for offset in range(_span(cell, "colspan")):
                if down > 1:
                    hanging[len(cells)] = (down - 1, text if offset == 0 else "")
                cells.append(text if offset == 0 else "")
        _hang(cells, hanging)
        rows.append(cells)
    return rows


def _hang(cells: list[str], hanging: dict[int, tuple[int, str]]) -> None:
    """Put the cells that reach down from rows above where this row has come to."""
    while len(cells) in hanging:
        left, text = hanging.pop(len(cells))
        if left > 1:
            hanging[len(cells)] = (left - 1, text)
        cells.append(text)


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return min(max(int(value), 1), MAX_SPAN) if value.isascii() and value.isdigit() else 1


def cell_text(node: Any) -> str:
    """The text under a node; block elements are a space apart, inline ones (a half-bold word) are not."""
    words: list[str] = []
    for event, child in etree.iterwalk(node, events=("start", "end")):
        block = " " if child.tag in _BLOCKS else ""
        if event == "start":
            words += (block, child.text or "" if isinstance(child.tag, str) else "")
        elif child is not node:
            words += (block, child.tail or "")
    return " ".join("".join(words).split())
