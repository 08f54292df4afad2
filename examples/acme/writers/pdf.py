"""PDF by fpdf2 with its built-in fonts, which hold Latin-1 and nothing else."""

from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace
from markup import Block, Sheet

INK, TEAL, PALE, GREY = (34, 40, 49), (11, 79, 108), (231, 240, 244), (110, 118, 129)
MARGIN = 24.0  # millimetres, as all lengths here
LINE = 6.8  # from one line of running text to the next
PAD = 2.0  # left and right of a cell's text


class Paper(FPDF):
    """An A4 page with a coloured band on top of the first page and a line with page numbers at the foot of each."""

    def __init__(self, foot: str) -> None:
        super().__init__(format="A4")
        self.foot = foot
        self.set_margins(MARGIN, MARGIN, MARGIN)
        self.set_auto_page_break(True, margin=MARGIN)

    def header(self) -> None:
        if self.page_no() == 1:
            self.set_fill_color(*TEAL)
            self.rect(0, 0, self.w, 5, style="F")

    def footer(self) -> None:
        self.set_y(-16)
        self.set_draw_color(*GREY)
        self.line(MARGIN, self.h - 17, self.w - MARGIN, self.h - 17)
        self.set_font("Helvetica", size=8)
        self.set_text_color(*GREY)
        self.cell(self.epw - 30, 6, self.foot)
        self.cell(30, 6, f"Page {self.page_no()} of {{nb}}", align="R")


def write_pdf(sheet: Sheet) -> bytes:
    """The sheet as a PDF. Raises ValueError where a page runs over: pages are broken by hand, for the citations."""
    paper = Paper(sheet.meta["footer"])
    paper.set_title(sheet.meta["title"])
    paper.set_author(sheet.meta["author"])
    paper.set_creation_date(sheet.date)
    paper.set_lang("en-GB")
    paper.add_page()
    write_title(paper, sheet)
    for block in sheet.blocks:
        write_block(paper, block)
    pages = 1 + sum(block.kind == "page" for block in sheet.blocks)
    if paper.page != pages:
        raise ValueError(f"{sheet.meta['title']}: {paper.page} pages instead of {pages}; move a page break or cut text")
    return bytes(paper.output())


def write_title(paper: Paper, sheet: Sheet) -> None:
    """Title, subtitle and a thin rule."""
    paper.set_font("Helvetica", style="B", size=26)
    paper.set_text_color(*TEAL)
    paper.multi_cell(0, 12, sheet.meta["title"], align="L", new_x="LMARGIN", new_y="NEXT")
    paper.set_font("Helvetica", size=11)
    paper.set_text_color(*GREY)
    paper.multi_cell(0, 6.5, sheet.meta["subtitle"], align="L", new_x="LMARGIN", new_y="NEXT")
    paper.ln(5)


def write_block(paper: Paper, block: Block) -> None:
    """One block at the current place."""
    match block.kind:
        case "page":
            paper.add_page()
        case "heading":
            write_heading(paper, block)
        case "list":
            write_list(paper, block)
        case "table":
            write_table(paper, block.rows)
        case _:
            set_body(paper)
            paper.multi_cell(0, LINE, block.text, align="L", new_x="LMARGIN", new_y="NEXT")
            paper.ln(3.4)


def set_body(paper: Paper) -> None:
    """The font of running text."""
    paper.set_font("Helvetica", size=12)
    paper.set_text_color(*INK)


def write_heading(paper: Paper, block: Block) -> None:
    """A heading with more air above than below; none above at the top of a page."""
    if paper.get_y() > MARGIN + 1:
        paper.ln(5 if block.level == 1 else 2.5)
    paper.set_font("Helvetica", style="B", size=16 if block.level == 1 else 13)
    paper.set_text_color(*TEAL)
    paper.multi_cell(0, 8, block.text, align="L", new_x="LMARGIN", new_y="NEXT")
    paper.ln(1.5)


def write_list(paper: Paper, block: Block) -> None:
    """Items with a hanging indent, behind a dash or a number."""
    set_body(paper)
    for number, line in enumerate(block.lines, start=1):
        paper.cell(7, LINE, f"{number}." if block.ordered else "-")
        paper.multi_cell(0, LINE, line, align="L", new_x="LMARGIN", new_y="NEXT")
        paper.ln(1.4)
    paper.ln(2.6)


def write_table(paper: Paper, rows: tuple[tuple[str, ...], ...]) -> None:
    """A table with a coloured header row."""
    set_body(paper)
    paper.set_font("Helvetica", size=10.5)
    paper.set_draw_color(*GREY)
    with paper.table(
        col_widths=column_widths(paper, rows),
        line_height=5.8,
        padding=(1.3, PAD),
        text_align="LEFT",
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", color=TEAL, fill_color=PALE),
    ) as table:
        for row in rows:
            table.row(row)
    paper.ln(5)


def column_widths(paper: Paper, rows: tuple[tuple[str, ...], ...]) -> tuple[float, ...]:
    """Relative widths: a short column gets what keeps it on one line, long ones share the rest evenly."""
    columns = [[(cell, at == 0) for at, cell in enumerate(column)] for column in zip(*rows, strict=True)]
    wished = [max(width(paper, cell, bold) for cell, bold in column) for column in columns]
    widths, rest = list(wished), paper.epw
    for left, at in zip(range(len(wished), 0, -1), sorted(range(len(wished)), key=wished.__getitem__), strict=True):
        widths[at] = min(wished[at], rest / left)
        rest -= widths[at]
    return tuple(widths)


def width(paper: Paper, text: str, bold: bool) -> float:
    """How wide a cell must be to hold the text on one line."""
    text_width = paper.get_string_width(f"**{text}**" if bold and text else text, markdown=bold)
    return text_width + 2 * PAD + 0.5
