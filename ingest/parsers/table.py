"""Tables: CSV with whatever delimiter and encoding, and Excel sheets by their cells."""

import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import openpyxl  # type: ignore[import-untyped]

from core.records import ParsedDocument
from ingest.confine import USUAL, ParseLimits
from ingest.parsers.archive import office_parts, repack
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.decode import decode
from ingest.parsers.drawing import sheet_drawing_pieces
from ingest.parsers.partition import row_line, table_piece

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_LINES = 100
_MAX_FIELD = 16 * 1024**2  # characters; csv's own limit of 128 Ki refuses honest exports


def parse_csv(content: bytes, limits: ParseLimits = USUAL) -> ParsedDocument:
    """One table, its first full row as the context of the others; lines above that row are paragraphs."""
    decoded = decode(content)
    csv.field_size_limit(_MAX_FIELD)
    text = decoded.text.replace("\x00", "")
    stated = text.startswith("sep=")  # Excel's own way to name the delimiter
    delimiter = text[4:5] if stated else guess_delimiter(text)
    body = text.partition("\n")[2] if stated else text
    rows = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, skipinitialspace=True)
    mime_type = "text/tab-separated-values" if delimiter == "\t" else "text/csv"
    cells = _Cells(limits.cells)
    filled = (row for row in cells.within(rows) if any(map(str.strip, row)))  # they alone are counted
    pieces = list(block_pieces(enumerate(filled, start=1)))
    return assemble(pieces, mime_type, None, (*decoded.warnings, *cells.warnings("the table")))


def guess_delimiter(text: str) -> str:
    """The delimiter under which most lines have the same number of fields, the more the better; a comma when none."""
    sample = "".join(text.splitlines(keepends=True)[:_SAMPLE_LINES])

    def agreement(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
        widths = Counter(len(row) for row in rows if row)
        width, lines = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        return (lines / sum(widths.values()), width) if width > 1 else (0.0, 0)

    return max(_DELIMITERS, key=agreement)


def parse_xlsx(content: bytes, limits: ParseLimits = USUAL) -> ParsedDocument:
    """Each sheet's name as a heading, then its tables, which are parted by blank rows; cached values of formulas."""
    parts = office_parts(content)
    book = openpyxl.load_workbook(io.BytesIO(repack(parts)), read_only=True, data_only=True, keep_links=False)
    pieces: list[Piece] = []
    warnings = [f"sheet {sheet.title!r} is hidden" for sheet in book.worksheets if sheet.sheet_state != "visible"]
    cells = _Cells(limits.cells)
    for sheet in book.worksheets:
        sheet.reset_dimensions()
        found = list(_sheet_pieces(sheet, cells))
        pieces += [Piece("heading", sheet.title, level=1), *found] if found else []
        warnings += cells.warnings(f"sheet {sheet.title!r}")
    pieces += sheet_drawing_pieces(parts)
    return assemble(pieces, XLSX, book.properties.title, warnings)


class _Cells:
    """How many cells are still read, over all sheets of a book."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._cut_before: int | None = None  # a row of the last sheet

    def within(self, rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """The rows before the one with which they are more than allowed."""
        self._cut_before = None
        for number, row in enumerate(rows, start=1):
            self._left -= sum(map(bool, row))
            if self._left < 0:
                self._cut_before = number
                return
            yield row

    def warnings(self, what: str) -> list[str]:
        """That rows of the last sheet were left out, if so."""
        if self._cut_before is None:
            return []
        return [f"sheet_cut: {what} is read up to row {self._cut_before - 1}: a file may have {self._most} cells "
                "(CITADEL_SHEET_CELLS)"]  # fmt: skip


def _sheet_pieces(sheet: Any, cells: _Cells) -> Iterator[Piece]:
    rows = ([cell_value(cell) for cell in row] for row in sheet.iter_rows())
    numbered = enumerate(cells.within(rows), start=1)
    for filled, block in groupby(numbered, key=lambda each: any(map(str.strip, each[1]))):
        if filled:
            yield from block_pieces(block)


def block_pieces(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[Piece]:
    """A block of numbered rows: the leading ones of a single cell are its captions, the rest is a table."""
    numbers, given = zip(*rows, strict=True) if (rows := list(rows)) else ((), ())
    remaining = _flush_left(list(given))
    first = 0
    while remaining and sum(bool(cell.strip()) for cell in remaining[0]) == 1 and _wider(remaining[1:]):
        caption = row_line([cell for cell in remaining.pop(0) if cell.strip()])
        yield Piece("paragraph", caption, row=numbers[first])
        first += 1
    if len(remaining) == 1 and sum(bool(cell.strip()) for cell in remaining[0]) == 1:
        yield Piece("paragraph", "".join(remaining[0]), row=numbers[first])
    elif remaining:
        yield table_piece(remaining, row=numbers[first])


def _flush_left(rows: list[Sequence[str]]) -> list[Sequence[str]]:
    """The rows without the columns that are empty in all of them on the left."""
    empty = min(
        (next(n for n, cell in enumerate(row) if cell.strip()) for row in rows if any(map(str.strip, row))), default=0
    )
    return [row[empty:] for row in rows]


def _wider(rows: Sequence[Sequence[str]]) -> bool:
    return any(sum(bool(cell.strip()) for cell in row) > 1 for row in rows[:3])


def cell_value(cell: Any) -> str:
    """A cell as a reader sees it: dates in ISO 8601, per cents as such, floats without the noise of base two."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        percent = "%" in (cell.number_format or "")
        return f"{value * 100:.12g}%" if percent else f"{value:.15g}" if isinstance(value, float) else str(value)
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(sep=" ")
    return str(value)
