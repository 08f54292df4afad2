"""Word, PowerPoint, Excel, OpenDocument and e-books, made here by the libraries that write them."""

import datetime
import io
import re
import zipfile
from typing import Any

import docx
import openpyxl  # type: ignore[import-untyped]
import pptx
import pytest
from docx.oxml import parse_xml
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from core.errors import CorruptDocument, EmptyDocument, ParserLimit
from core.records import ParsedDocument
from ingest.parse import parse
from ingest.parsers.archive import MAX_ENTRIES
from ingest.sniff import sniff
from tests.unit.parsing import archive, outline, texts

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
M = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'


def saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def parsed(content: bytes) -> ParsedDocument:
    return parse(content, sniff(content))


def word() -> Any:
    document = docx.Document()
    document.core_properties.title = "Travel policy"
    document.add_heading("Travel", level=1)
    document.add_paragraph("Book early.")
    document.add_heading("Limits", level=2)
    document.add_paragraph("a seat", style="List Bullet")
    document.add_paragraph("a room", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip((*table.rows[0].cells, *table.rows[1].cells), ("City", "Limit", "Rome", "120"), strict=True):
        cell.text = text
    document.add_page_break()
    document.add_heading("Annex", level=3)
    document.add_paragraph("End.")
    return document


def test_docx() -> None:
    document = parsed(saved(word()))
    assert document.title == "Travel policy"
    assert outline(document) == [
        ("heading", 1, "Travel"),
        ("paragraph", 0, "Book early."),
        ("heading", 2, "Limits"),
        ("list_item", 0, "a seat"),
        ("list_item", 0, "a room"),
        ("table", 0, "City | Limit\nRome | 120"),
        ("heading", 3, "Annex"),
        ("paragraph", 0, "End."),
    ]
    assert "a seat\na room" in document.text
    assert {element.page for element in document.elements} == {None}


def test_docx_short_lines_are_neither_headings_nor_changed() -> None:
    document = docx.Document()
    for line in ("X", "NOT A TITLE", "-5 degrees", "Springfield, IL 62701"):
        document.add_paragraph(line)
    assert outline(parsed(saved(document))) == [
        ("paragraph", 0, "X"),
        ("paragraph", 0, "NOT A TITLE"),
        ("paragraph", 0, "-5 degrees"),
        ("paragraph", 0, "Springfield, IL 62701"),
    ]


TRACKED = "<w:p><w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
CONTROL = "<w:sdt><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
FRACTION = "<m:f><m:num><m:r><m:t>a</m:t></m:r></m:num><m:den><m:r><m:t>b</m:t></m:r></m:den></m:f>"
EQUATION = f"<w:p><w:r><w:t>so </w:t></w:r><m:oMath>{FRACTION}</m:oMath></w:p>"
PAGE_END = "<w:p><w:r><w:t>un</w:t><w:lastRenderedPageBreak/><w:t>broken</w:t></w:r></w:p>"
BOX = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
TEXT_BOX = f"<w:p><w:r><w:pict>{BOX}</w:pict></w:r></w:p>"


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (TRACKED, "added"),
        (CONTROL, "controlled"),
        (EQUATION, "so (a)/(b)"),
        (PAGE_END, "unbroken"),
        (TEXT_BOX, "boxed"),
    ],
)
def test_docx_text_where_unstructured_does_not_look(markup: str, expected: str) -> None:
    document = docx.Document()
    document.add_paragraph("before")
    document.element.body.insert(1, parse_xml(markup.replace(">", f" {W} {M}>", 1)))
    document.add_paragraph("after")
    assert texts(parsed(saved(document))) == ["before", expected, "after"]


def test_docx_strict_is_read_like_transitional() -> None:
    with zipfile.ZipFile(io.BytesIO(saved(word()))) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    strict = {
        name: re.sub(rb"http://schemas.openxmlformats.org/(\w+)/2006/", rb"http://purl.oclc.org/ooxml/\1/", part)
        if name.startswith("word/")
        else part
        for name, part in parts.items()
    }
    assert strict != parts
    assert outline(parsed(archive(strict))) == outline(parsed(archive(parts)))


def test_pptx_pages_are_slides() -> None:
    presentation = pptx.Presentation()
    layout = presentation.slide_layouts[1]
    for number in (1, 2):
        slide = presentation.slides.add_slide(layout)
        slide.shapes.title.text = f"Slide {number}"
        slide.placeholders[1].text = f"Point {number}\nAnother {number}"
    slide.notes_slide.notes_text_frame.text = "Say hello"
    data = CategoryChartData()
    data.categories = ["2024", "2025"]
    data.add_series("Sales", (4.4, 5))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(1), Inches(4), Inches(3), data)
    document = parsed(saved(presentation))
    assert [(element.page, found) for element, found in zip(document.elements, outline(document), strict=True)] == [
        (1, ("heading", 1, "Slide 1")),
        (1, ("paragraph", 0, "Point 1")),
        (1, ("paragraph", 0, "Another 1")),
        (2, ("heading", 1, "Slide 2")),
        (2, ("paragraph", 0, "Point 2")),
        (2, ("paragraph", 0, "Another 2")),
        (2, ("table", 0, "| Sales\n2024 | 4.4\n2025 | 5")),
        (2, ("paragraph", 0, "Notes: Say hello")),
    ]


def test_xlsx_sheets_are_headings_and_rows_carry_their_header() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Limits"
    sheet.append(["Travel limits 2026"])
    sheet.append(["City", "Limit", "Share", "From", "Open"])
    sheet.append(["Rome", 120.1 + 0.2, 0.25, datetime.datetime(2026, 1, 31), True])
    sheet["C3"].number_format = "0%"
    sheet["B6"] = "Only here"
    other = book.create_sheet("Notes")
    other.append(["a", 1])
    other.sheet_state = "hidden"
    book.create_sheet("Blank")
    document = parsed(saved(book))
    assert outline(document) == [
        ("heading", 1, "Limits"),
        ("paragraph", 0, "Travel limits 2026"),
        ("table", 0, "City | Limit | Share | From | Open\nRome | 120.3 | 25% | 2026-01-31 | TRUE"),
        ("paragraph", 0, "Only here"),
        ("heading", 1, "Notes"),
        ("table", 0, "a | 1"),
    ]
    assert document.elements[2].context == "City | Limit | Share | From | Open"
    assert document.warnings == ("sheet 'Notes' is hidden",)


def test_odt() -> None:
    names = ("office:1.0", "text:1.0", "table:1.0")
    spaces = " ".join(f'xmlns:{name[:-4]}="urn:oasis:names:tc:opendocument:xmlns:{name}"' for name in names)
    content = (
        f"<office:document-content {spaces}><office:body><office:text>"
        '<text:h text:outline-level="2">Limits</text:h><text:p>two<text:s/>words<text:line-break/>and a line</text:p>'
        "<text:list><text:list-item><text:p>item</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>City</text:p></table:table-cell>"
        "<table:table-cell><text:p>Limit</text:p></table:table-cell></table:table-row></table:table>"
        "</office:text></office:body></office:document-content>"
    )
    document = parsed(archive({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content}))
    assert outline(document) == [
        ("heading", 2, "Limits"),
        ("paragraph", 0, "two words\nand a line"),
        ("list_item", 0, "item"),
        ("table", 0, "City | Limit"),
    ]


def test_epub_follows_its_spine() -> None:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>A Book</dc:title></metadata><manifest>"
        '<item id="b" href="second.xhtml"/><item id="a" href="first%20one.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="c"/></spine></package>'
    )
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": opf,
        "OEBPS/second.xhtml": "<html><body><h1>Two</h1><p>b</p></body></html>",
        "OEBPS/first one.xhtml": '<?xml version="1.0" encoding="utf-8"?><html><body><h1>One</h1><p>a</p></body></html>',
    }
    document = parsed(archive(parts))
    assert document.title == "A Book"
    assert texts(document) == ["One", "a", "Two", "b"]


def test_a_document_without_text_says_so() -> None:
    with pytest.raises(EmptyDocument, match="pictures and embedded files are not read"):
        parsed(saved(docx.Document()))


def test_a_cut_off_docx_is_corrupt() -> None:
    content = saved(word())
    for length in (len(content) // 2, len(content) - 30):
        with pytest.raises(CorruptDocument):
            parsed(content[:length])


def test_a_docx_with_a_damaged_part_is_corrupt() -> None:
    content = bytearray(saved(word()))
    place = content.find(b"word/document.xml") + len("word/document.xml") + 40
    content[place : place + 40] = b"\x00" * 40
    with pytest.raises(CorruptDocument, match=r"word/document.xml.*damaged"):
        parsed(bytes(content))


def test_zip_bombs_are_refused_unread() -> None:
    bomb = archive({"[Content_Types].xml": "<Types/>", "word/document.xml": b"0" * 200_000_000})
    assert len(bomb) < 300_000
    with pytest.raises(ParserLimit, match="zip bomb"):
        parsed(bomb)
    crowd = archive({"mimetype": "application/epub+zip"} | {f"{number}": b"" for number in range(MAX_ENTRIES)})
    with pytest.raises(ParserLimit, match="parts"):
        parsed(crowd)


def test_external_entities_are_not_read(tmp_path: Any) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    entity = f'<!DOCTYPE w:document [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    body = f"{entity}<w:document {W}><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p></w:body></w:document>"
    with pytest.raises(CorruptDocument, match="document type"):
        parsed(archive({"[Content_Types].xml": "<Types/>", "word/document.xml": body}))
    xml = f'<?xml version="1.0"?>{entity}<note><to>Ana</to><text>&x;</text></note>'.replace("w:document ", "note ")
    assert texts(parsed(xml.encode())) == ["Ana"]


def test_entities_do_not_multiply() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    xml = f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY l0 "lol">{laughs}]><r><a>word</a><b>&l11;</b></r>'
    with pytest.raises(CorruptDocument):
        parsed(xml.encode())
