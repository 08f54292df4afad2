"""PPTX by python-pptx: sixteen to nine, a title slide, then one slide for each top heading; quoted lines are notes."""

from collections.abc import Iterator
from io import BytesIO

from markup import Block, Sheet
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.shapes import MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.presentation import Presentation as Deck
from pptx.shapes.base import BaseShape
from pptx.slide import Slide
from pptx.text.text import TextFrame
from pptx.util import Inches, Length, Pt

HEXES = ("0B4F6C", "222831", "6E7681", "FFFFFF")
TEAL, INK, GREY, WHITE = (RGBColor.from_string(code) for code in HEXES)  # type: ignore[no-untyped-call]
WIDTH, HEIGHT, LEFT = Inches(13.333), Inches(7.5), Inches(0.8)
INNER = Inches(11.7)
TITLE_SLIDE, TITLE_AND_CONTENT, TITLE_ONLY = 0, 1, 5  # layouts of python-pptx's own template


def write_pptx(sheet: Sheet) -> bytes:
    """The sheet as a PPTX file."""
    deck = Presentation()
    deck.slide_width, deck.slide_height = WIDTH, HEIGHT
    properties = deck.core_properties
    properties.title, properties.author = sheet.meta["title"], sheet.meta["author"]
    properties.last_modified_by = sheet.meta["author"]
    properties.created = properties.modified = sheet.date
    write_title_slide(deck, sheet)
    for number, blocks in enumerate(slides(sheet.blocks), start=2):
        slide = write_slide(deck, blocks)
        write_footer(slide, sheet.meta["footer"], number)
    buffer = BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def slides(blocks: tuple[Block, ...]) -> Iterator[tuple[Block, ...]]:
    """The blocks of each slide, its heading first."""
    starts = [at for at, block in enumerate(blocks) if block.kind == "heading"]
    for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
        yield blocks[start:end]


def write_title_slide(deck: Deck, sheet: Sheet) -> None:
    """White on the house colour."""
    slide = deck.slides.add_slide(deck.slide_layouts[TITLE_SLIDE])
    slide.background.fill.solid()
    slide.background.fill.fore_color.rgb = TEAL
    title, subtitle = slide.placeholders[0], slide.placeholders[1]
    place(title, top=2.3, height=1.6)
    place(subtitle, top=4.1, height=1.2)
    set_text(title.text_frame, (sheet.meta["title"],), Pt(46), WHITE, bold=True)
    set_text(subtitle.text_frame, (sheet.meta["subtitle"],), Pt(22), WHITE)
    title.text_frame.vertical_anchor = MSO_ANCHOR.BOTTOM


def write_slide(deck: Deck, blocks: tuple[Block, ...]) -> Slide:
    """A slide: bar, title, and a list or a table; a paragraph stands below it."""
    has_list = any(block.kind == "list" for block in blocks)
    slide: Slide = deck.slides.add_slide(deck.slide_layouts[TITLE_AND_CONTENT if has_list else TITLE_ONLY])
    bar = slide.shapes.add_shape(MSO_SHAPE.RECTANGLE, Inches(0), Inches(0), WIDTH, Inches(0.16))
    bar.fill.solid()
    bar.fill.fore_color.rgb = TEAL
    bar.line.fill.background()
    for block in blocks:
        write_block(slide, block)
    return slide


def write_block(slide: Slide, block: Block) -> None:
    """One block at its place on the slide."""
    match block.kind:
        case "heading":
            title = slide.placeholders[0]
            place(title, top=0.5, height=1.0)
            set_text(title.text_frame, (block.text,), Pt(34), TEAL, bold=True)
        case "list":
            body = slide.placeholders[1]
            place(body, top=1.8, height=3.9)
            set_text(body.text_frame, block.lines, Pt(24), INK)
        case "table":
            write_table(slide, block.rows)
        case "note":
            notes = slide.notes_slide.notes_text_frame
            assert notes is not None, "python-pptx's own template has a notes placeholder"
            notes.text = block.text
        case _:
            box = slide.shapes.add_textbox(LEFT, Inches(5.6), INNER, Inches(0.9))
            box.text_frame.word_wrap = True
            set_text(box.text_frame, (block.text,), Pt(20), GREY)


def place(shape: BaseShape, top: float, height: float) -> None:
    """Puts the shape on the inner width; `top` and `height` in inches."""
    shape.left, shape.top, shape.width, shape.height = LEFT, Inches(top), INNER, Inches(height)


def set_text(frame: TextFrame, lines: tuple[str, ...], size: Pt, colour: RGBColor, bold: bool = False) -> None:
    """The frame's text, one paragraph a line, flush left."""
    frame.text = "\n".join(lines)
    for paragraph in frame.paragraphs:
        paragraph.alignment = PP_ALIGN.LEFT
        paragraph.space_after = Pt(8)
        for run in paragraph.runs:  # a paragraph's own font is ignored by PowerPoint
            run.font.size, run.font.bold = size, bold
            run.font.color.rgb = colour


def write_table(slide: Slide, rows: tuple[tuple[str, ...], ...]) -> None:
    """A table below the title, its header in the house colour."""
    size = Inches(0.55)
    frame = slide.shapes.add_table(len(rows), len(rows[0]), LEFT, Inches(1.8), INNER, Length(size * len(rows)))
    for cells, row in zip(frame.table.rows, rows, strict=True):
        for cell, text in zip(cells.cells, row, strict=True):
            set_text(cell.text_frame, (text,), Pt(18), INK)
            cell.vertical_anchor = MSO_ANCHOR.MIDDLE
    for cell, text in zip(frame.table.rows[0].cells, rows[0], strict=True):
        set_text(cell.text_frame, (text,), Pt(18), WHITE, bold=True)
        cell.fill.solid()
        cell.fill.fore_color.rgb = TEAL


def write_footer(slide: Slide, text: str, number: int) -> None:
    """The deck's name and the slide's number in small grey."""
    box = slide.shapes.add_textbox(LEFT, Inches(6.95), INNER, Inches(0.4))
    set_text(box.text_frame, (f"{text}  |  {number}",), Pt(11), GREY)
