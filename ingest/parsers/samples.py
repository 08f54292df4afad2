"""The smallest file of each family, to warm up its parser with."""

import io
from collections.abc import Iterator

import docx
import openpyxl  # type: ignore[import-untyped]
import pptx


def samples() -> Iterator[tuple[bytes, str | None]]:
    """(content, declared MIME type) of one file a family."""
    yield b"# warm\n\n- up\n", "text/markdown"
    yield "wärm, up\n".encode("cp1252") * 20, "text/csv"
    yield b"<html><body><h1>warm</h1><table><tr><td>u</td><td>p</td></tr></table></body></html>", None
    yield b"From: a@b.example\nTo: c@d.example\nDate: today\n\nwarm up\n", None
    yield _word(), None
    yield _slides(), None
    yield _sheet(), None


def _word() -> bytes:
    buffer, document = io.BytesIO(), docx.Document()
    document.add_heading("warm", level=1)
    document.add_table(1, 2).cell(0, 0).text = "up"
    document.save(buffer)
    return buffer.getvalue()


def _slides() -> bytes:
    buffer, presentation = io.BytesIO(), pptx.Presentation()
    title = presentation.slides.add_slide(presentation.slide_layouts[0]).shapes.title
    assert title is not None  # the layout is the title slide's
    title.text = "warm"
    presentation.save(buffer)
    return buffer.getvalue()


def _sheet() -> bytes:
    buffer, book = io.BytesIO(), openpyxl.Workbook()
    book.active.append(["warm", "up"])
    book.save(buffer)
    return buffer.getvalue()
