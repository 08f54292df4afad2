"""DOCX by python-docx: real heading styles, lists and tables, so that a parser finds the structure."""

from io import BytesIO

from docx import Document
from docx.document import Document as Word
from docx.shared import Pt, RGBColor
from markup import Block, Sheet

TEAL = RGBColor(11, 79, 108)


def write_docx(sheet: Sheet) -> bytes:
    """The sheet as a DOCX file."""
    word = Document()
    set_styles(word)
    set_properties(word, sheet)
    word.add_paragraph(sheet.meta["title"], style="Title")
    word.add_paragraph(sheet.meta["subtitle"], style="Subtitle")
    for block in sheet.blocks:
        write_block(word, block)
    word.sections[0].footer.paragraphs[0].text = f"Acme Hydrometrics B.V. - {sheet.meta['title']}"
    buffer = BytesIO()
    word.save(buffer)
    return buffer.getvalue()


def set_styles(word: Word) -> None:
    """One typeface, and the house colour for headings."""
    word.styles["Normal"].font.name = "Calibri"
    word.styles["Normal"].font.size = Pt(11)
    for name in ("Title", "Heading 1", "Heading 2"):
        word.styles[name].font.color.rgb = TEAL
    word.styles["Title"].font.size = Pt(24)


def set_properties(word: Word, sheet: Sheet) -> None:
    """Title, author and dates of the file."""
    properties = word.core_properties
    properties.title, properties.author = sheet.meta["title"], sheet.meta["author"]
    properties.last_modified_by, properties.comments = sheet.meta["author"], ""
    properties.created = properties.modified = sheet.date


def write_block(word: Word, block: Block) -> None:
    """One block at the end of the document."""
    match block.kind:
        case "page":
            word.add_page_break()  # type: ignore[no-untyped-call]
        case "heading":
            word.add_heading(block.text, level=block.level)
        case "list":
            for line in block.lines:
                word.add_paragraph(line, style="List Number" if block.ordered else "List Bullet")
        case "table":
            write_table(word, block.rows)
        case _:
            word.add_paragraph(block.text)


def write_table(word: Word, rows: tuple[tuple[str, ...], ...]) -> None:
    """A table with a header row, and an empty paragraph after it."""
    table = word.add_table(rows=len(rows), cols=len(rows[0]), style="Light Grid Accent 1")
    for cells, row in zip(table.rows, rows, strict=True):
        for cell, text in zip(cells.cells, row, strict=True):
            cell.text = text
    word.add_paragraph()
