"""XLSX by openpyxl: one sheet for each top heading with its table."""

import re
from io import BytesIO
from itertools import pairwise

from markup import Sheet
from openpyxl import Workbook  # type: ignore[import-untyped]
from openpyxl.styles import Alignment, Font, PatternFill  # type: ignore[import-untyped]
from openpyxl.utils import get_column_letter  # type: ignore[import-untyped]
from openpyxl.worksheet.worksheet import Worksheet  # type: ignore[import-untyped]

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
WIDEST = 60  # characters; longer cells wrap


def write_xlsx(sheet: Sheet) -> bytes:
    """The content file as a workbook."""
    book = Workbook()
    book.remove(book.active)
    book.properties.title, book.properties.creator = sheet.meta["title"], sheet.meta["author"]
    book.properties.created = sheet.date
    for heading, table in pairwise(sheet.blocks):
        if heading.kind == "heading" and table.kind == "table":
            write_rows(book.create_sheet(heading.text), table.rows)
    buffer = BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def write_rows(page: Worksheet, rows: tuple[tuple[str, ...], ...]) -> None:
    """Fills a sheet: header in bold on pale blue and frozen, numbers as numbers."""
    for row in rows:
        page.append([number(cell) for cell in row])
    for cell in page[1]:
        cell.font = Font(bold=True, color="0B4F6C")
        cell.fill = PatternFill("solid", fgColor="E7F0F4")
    for at, column in enumerate(zip(*rows, strict=True), start=1):
        page.column_dimensions[get_column_letter(at)].width = min(max(len(cell) for cell in column) + 3, WIDEST)
    for row_cells in page.iter_rows(min_row=2):
        for cell in row_cells:
            cell.alignment = Alignment(wrap_text=True, vertical="top")
            if isinstance(cell.value, int):
                cell.number_format = "#,##0"
    page.freeze_panes = "A2"


def number(cell: str) -> str | int | float | None:
    """The cell as a number where it is one, as nothing where it is empty."""
    if _NUMBER.fullmatch(cell):
        return float(cell) if "." in cell else int(cell)
    return cell or None
