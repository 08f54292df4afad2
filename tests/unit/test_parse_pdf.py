"""PDF: text with the page it stands on, in files that fpdf2 writes."""

import io

import pypdf
import pytest
from fpdf import FPDF
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NumberObject,
    StreamObject,
    TextStringObject,
)

from core.errors import CorruptDocument, EmptyDocument, EncryptedDocument, ParserLimit
from ingest.confine import ParseLimits
from ingest.parse import parse
from tests.unit.parsing import outline, texts

BODY = "Travel is booked through the portal at least ten days ahead of the trip, by the traveller."


def written(pages: list[list[tuple[int, str]]], title: str = "") -> bytes:
    """A PDF with a paragraph for each (point size, text) of each page; parted by half a line."""
    pdf = FPDF()
    pdf.set_title(title)
    for page in pages:
        pdf.add_page()
        for size, text in page:
            pdf.set_font("Helvetica", size=size)
            pdf.multi_cell(0, size * 0.42, text, new_x="LMARGIN", new_y="NEXT")
            pdf.ln(size * 0.35)
    return bytes(pdf.output())


def encrypted(content: bytes, user: str, owner: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt(user_password=user, owner_password=owner, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_pages_headings_and_paragraphs() -> None:
    first = [(22, "Travel policy"), (11, BODY * 3), (15, "Limits"), (11, BODY)]
    second = [(15, "Annex"), (11, BODY * 2)]
    document = parse(written([first, second]), "application/pdf")
    assert [(element.page, element.kind, element.level) for element in document.elements] == [
        (1, "heading", 1),
        (1, "paragraph", 0),
        (1, "heading", 2),
        (1, "paragraph", 0),
        (2, "heading", 2),
        (2, "paragraph", 0),
    ]
    flowing = [" ".join(text.split()) for text in texts(document)]
    assert flowing == ["Travel policy", BODY * 3, "Limits", BODY, "Annex", BODY * 2]
    assert document.title == "Travel policy"


def test_the_title_in_the_file_wins_unless_it_is_a_file_name() -> None:
    page = [(18, "Heading"), (11, BODY * 4)]
    assert parse(written([page], "Travel rules"), "application/pdf").title == "Travel rules"
    assert parse(written([page], "Microsoft Word - draft7.doc"), "application/pdf").title == "Heading"


def test_text_of_one_size_has_no_headings() -> None:
    document = parse(written([[(11, "Short line"), (11, BODY)]]), "application/pdf")
    assert {kind for kind, _, _ in outline(document)} == {"paragraph"}


def test_pages_without_text_are_named() -> None:
    document = parse(written([[(11, BODY)], [], [], [(11, BODY)], []]), "application/pdf")
    assert {element.page for element in document.elements} == {1, 4}
    assert document.warnings == ("pages 2-3, 5 hold no text: scans?",)
    assert parse(written([[(11, BODY)], []]), "application/pdf").warnings == ("page 2 holds no text: a scan?",)


def test_a_scan_is_empty_and_says_why() -> None:
    with pytest.raises(EmptyDocument, match="none of the PDF's 2 pages.*CITADEL_OCR=on"):
        parse(written([[], []]), "application/pdf")


def test_a_word_parted_at_the_line_end_is_whole_again() -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    for line in ("The well-known rules of infor-", "mation apply to well-", "known systems and COVID-", "19 alike."):
        pdf.cell(0, 5, line, new_x="LMARGIN", new_y="NEXT")
    document = parse(bytes(pdf.output()), "application/pdf")
    words = document.text.split()
    assert "information" in words
    assert words.count("well-known") == 2  # the text writes it unparted too, so the hyphen is its own
    assert "COVID-19" in words


def test_what_is_filled_into_a_form_is_text() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(written([[(11, BODY)]])))
    value, appearance = TextStringObject("Ana Example"), StreamObject()
    appearance.set_data(b"/Tx BMC q BT /F1 10 Tf 2 6 Td (Ana Example) Tj ET Q EMC")
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    fonts = DictionaryObject({NameObject("/F1"): DictionaryObject(map_names(font))})
    appearance.update(map_names({"/Type": "/XObject", "/Subtype": "/Form"}))
    appearance[NameObject("/BBox")] = ArrayObject([FloatObject(number) for number in (0, 0, 150, 20)])
    appearance[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    field = DictionaryObject(map_names({"/Type": "/Annot", "/Subtype": "/Widget", "/FT": "/Tx"}))
    field[NameObject("/T")] = TextStringObject("name")
    field[NameObject("/V")] = value
    field[NameObject("/F")] = NumberObject(4)
    field[NameObject("/Rect")] = ArrayObject([FloatObject(number) for number in (50, 100, 200, 120)])
    field[NameObject("/AP")] = DictionaryObject({NameObject("/N"): writer._add_object(appearance)})
    reference = writer._add_object(field)
    writer.pages[0][NameObject("/Annots")] = ArrayObject([reference])
    form = DictionaryObject({NameObject("/Fields"): ArrayObject([reference])})
    writer._root_object[NameObject("/AcroForm")] = writer._add_object(form)
    buffer = io.BytesIO()
    writer.write(buffer)
    assert "Ana Example" in texts(parse(buffer.getvalue(), "application/pdf"))


def map_names(names: dict[str, str]) -> dict[NameObject, NameObject]:
    return {NameObject(key): NameObject(value) for key, value in names.items()}


def test_a_password_is_asked_for() -> None:
    content = encrypted(written([[(11, BODY)]]), user="secret", owner="other")
    with pytest.raises(EncryptedDocument, match="password"):
        parse(content, "application/pdf")


def test_a_pdf_that_anybody_may_open_is_read() -> None:
    content = encrypted(written([[(11, BODY)]]), user="", owner="other")
    assert " ".join(parse(content, "application/pdf").text.split()) == BODY


def test_cut_off_and_damaged_files_are_corrupt() -> None:
    content = written([[(11, BODY)]] * 30)
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(CorruptDocument, match="cut off"):
            parse(content[: int(len(content) * share)], "application/pdf")
    with pytest.raises(CorruptDocument, match="damaged"):
        parse(b"%PDF-1.7\nnothing of the kind\n%%EOF", "application/pdf")


def test_too_many_pages_are_a_limit() -> None:
    content = written([[(11, BODY)]] * 3)
    with pytest.raises(ParserLimit, match="3 pages; 2 are allowed"):
        parse(content, "application/pdf", ParseLimits(pages=2))
