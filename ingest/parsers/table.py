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
from ingest.parsers.archive import office_parts, repack
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.decode import decode
from ingest.parsers.drawing import sheet_drawing_pieces
from ingest.parsers.partition import row_line, table_piece

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_LINES = 100
_MAX_FIELD = 16 * 1024**2  # characters; csv's own limit of 128 Ki refuses honest exports


def parse_csv(content: bytes) -> ParsedDocument:
    """One table, its first full row as the context of the others; lines above that row are paragraphs."""
    decoded = decode(content)
    csv.field_size_limit(_MAX_FIELD)
    text = decoded.text.replace("\x00", "")
    stated = text.startswith("sep=")  # Excel's own way to name the delimiter
    delimiter = text[4:5] if stated else guess_delimiter(text)
    body = text.partition("\n")[2] if stated else text
    rows = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, skipinitialspace=True)
    mime_type = "text/tab-separated-values" if delimiter == "\t" else "text/csv"
    return assemble(block_pieces(row for row in rows if any(map(str.strip, row))), mime_type, None, decoded.warnings)


def guess_delimiter(text: str) -> str:
    """The delimiter under which most lines have the same number of fields, the more the better; a comma when none."""
    sample = "".join(text.splitlines(keepends=True)[:_SAMPLE_LINES])

    def agreement(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
        widths = Counter(len(row) for row in rows if row)
        width, lines = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        return (lines / sum(widths.values()), width) if width > 1 else (0.0, 0)

    return max(_DELIMITERS, key=agreement)


def parse_xlsx(content: bytes) -> ParsedDocument:
    """Each sheet's name as a heading, then its tables, which are parted by blank rows; cached values of formulas."""
    parts = office_parts(content)
    book = openpyxl.load_workbook(io.BytesIO(repack(parts)), read_only=True, data_only=True, keep_links=False)
    pieces: list[Piece] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()
        cells = list(_sheet_pieces(sheet))
        pieces += [Piece("heading", sheet.title, level=1), *cells] if cells else []
    pieces += sheet_drawing_pieces(parts)
    warnings = [f"sheet {sheet.title!r} is hidden" for sheet in book.worksheets if sheet.sheet_state != "visible"]
    return assemble(pieces, XLSX, book.properties.title, warnings)


def _sheet_pieces(sheet: Any) -> Iterator[Piece]:
    rows = ([cell_value(cell) for cell in row] for row in sheet.iter_rows())
    for filled, block in groupby(rows, key=lambda row: any(map(str.strip, row))):
        if filled:
            yield from block_pieces(block)


def block_pieces(rows: Iterable[Sequence[str]]) -> Iterator[Piece]:
    """A block of rows: the leading ones of a single cell are its captions, the rest is a table."""
    remaining = _flush_left(list(rows))
    while remaining and sum(bool(cell.strip()) for cell in remaining[0]) == 1 and _wider(remaining[1:]):
        yield Piece("paragraph", row_line([cell for cell in remaining.pop(0) if cell.strip()]))
    if len(remaining) == 1 and sum(bool(cell.strip()) for cell in remaining[0]) == 1:
        yield Piece("paragraph", "".join(remaining[0]))
    elif remaining:
        yield table_piece(remaining)


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
