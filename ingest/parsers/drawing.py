"""Text inside the drawings of Word and PowerPoint files: charts, diagrams and equations."""

from collections.abc import Iterator
from typing import Any

from ingest.parsers.archive import related, xml_root
from ingest.parsers.canonical import Piece
from ingest.parsers.partition import table_piece

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"


def drawing_pieces(parts: dict[str, bytes], owner: str, page: int | None = None) -> Iterator[Piece]:
    """The charts and diagrams that the part `owner` (a document, a slide) refers to."""
    for name in related(parts, owner, "chart"):
        yield from _chart(xml_root(parts[name]), page)
    yield from diagram_pieces(parts, owner, page)


def diagram_pieces(parts: dict[str, bytes], owner: str, page: int | None = None) -> Iterator[Piece]:
    """The texts of the diagrams (SmartArt) that a part refers to."""
    for name in related(parts, owner, "diagramData"):
        yield from (Piece("paragraph", text, page=page) for text in _paragraphs(xml_root(parts[name])))


def sheet_drawing_pieces(parts: dict[str, bytes]) -> Iterator[Piece]:
    """The text boxes and diagrams of a workbook; its charts repeat what its cells hold."""
    for name, part in parts.items():
        if name.startswith("xl/drawings/drawing") and part:
            yield from (Piece("paragraph", text) for text in _paragraphs(xml_root(part)))
            yield from diagram_pieces(parts, name)


def _paragraphs(root: Any) -> Iterator[str]:
    """The text of each drawing paragraph under a node."""
    for paragraph in root.iter(f"{_A}p"):
        text = "".join(run.text or "" for run in paragraph.iter(f"{_A}t"))
        if text.strip():
            yield text


def _chart(root: Any, page: int | None) -> Iterator[Piece]:
    """The titles of a chart, then its numbers: a row for each category, a column for each series."""
    for title in root.iter(f"{_C}title"):
        yield from (Piece("paragraph", text, page=page) for text in _paragraphs(title))
    series = list(root.iter(f"{_C}ser"))
    names = [" ".join(_points(one, f"{_C}tx").values()) for one in series]
    values = [{**_points(one, f"{_C}yVal"), **_points(one, f"{_C}val")} for one in series]
    categories: dict[int, str] = {}
    for one in series:
        categories = {**_points(one, f"{_C}xVal"), **_points(one, f"{_C}cat"), **categories}
    indexes = sorted({index for column in (categories, *values) for index in column})
    rows = [[categories.get(index, ""), *(column.get(index, "") for column in values)] for index in indexes]
    if rows:
        yield table_piece([["", *names], *rows], page=page)


def _points(series: Any, child: str) -> dict[int, str]:
    """The cached points under one part of a series, by index."""
    node = series.find(child)
    if node is None:
        return {}
    points = [(point.get("idx", ""), point.findtext(f"{_C}v", "")) for point in node.iter(f"{_C}pt")]
    return {int(index): _number(value) for index, value in points if index.isdigit()}


def _number(value: str) -> str:
    """4.4000000000000004, as a file caches it, as the 4.4 that a chart shows."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value


def math_text(node: Any) -> str:
    """An Office equation on one line, e.g. (a+b)/(2c), x^(2), sqrt(x)."""
    if node.tag == f"{_M}t":
        return node.text or ""
    if node.tag == f"{_M}f":
        return f"({_under(node, 'num')})/({_under(node, 'den')})"
    if node.tag == f"{_M}func":
        return f"{_under(node, 'fName')} {_under(node, 'e')}"
    if node.tag == f"{_M}rad":
        return f"sqrt({_under(node, 'e')})"
    if node.tag in (f"{_M}sSup", f"{_M}sSub", f"{_M}sSubSup"):
        below, above = _under(node, "sub"), _under(node, "sup")
        return _under(node, "e") + (f"_({below})" if below else "") + (f"^({above})" if above else "")
    return "".join(math_text(child) for child in node)


def _under(node: Any, name: str) -> str:
    return "".join(math_text(child) for child in node.findall(f"{_M}{name}"))
