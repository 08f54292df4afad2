"""Text on pictures, read by tesseract where it is installed, and what is said where it is not."""

import ctypes
import io
from collections.abc import Iterator

import pypdf
import pytest
from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from core.config import Settings
from core.errors import CorruptDocument, EmptyDocument, Misconfigured, OcrUnavailable, ParserLimit, UnsupportedType
from ingest.parse import parse_file
from ingest.parsers import ocr
from ingest.sandbox import ParseLimits, ParserSandbox
from workers.process import limits_of

READ = ParseLimits(ocr_languages="eng")
LINES = ("The harbour office opens at nine.", "Permits are stamped on the second floor.")


def installed() -> bool:
    try:
        ctypes.CDLL(ocr.LIBRARIES[0])
    except OSError:
        return False
    return True


needs_tesseract = pytest.mark.skipif(
    not installed(), reason="tesseract is not installed: apt-get install tesseract-ocr"
)


def painted(lines: tuple[str, ...] = LINES) -> Image.Image:
    """Lines of print as a scanner sees them."""
    image = Image.new("L", (1000, 120 + 80 * len(lines)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(40)
    for number, line in enumerate(lines):
        draw.text((50, 50 + 80 * number), line, font=font, fill="black")
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def mixed() -> bytes:
    """A PDF of a page with text, a scanned one, and another with text."""
    text = FPDF()
    for words in ("The first page has text.", "The last page has text."):
        text.add_page()
        text.set_font("helvetica", size=12)
        text.cell(text=words)
    scan = pypdf.PdfReader(io.BytesIO(saved(painted(), "PDF", resolution=150.0)))
    printed = pypdf.PdfReader(io.BytesIO(bytes(text.output())))
    writer, buffer = pypdf.PdfWriter(), io.BytesIO()
    for page in (printed.pages[0], scan.pages[0], printed.pages[1]):
        writer.add_page(page)
    writer.write(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def reading() -> Iterator[ParserSandbox]:
    with ParserSandbox(READ) as sandbox:
        yield sandbox


@needs_tesseract
def test_a_picture_is_read_behind_all_walls(reading: ParserSandbox) -> None:
    for kind, mime_type in (("PNG", "image/png"), ("JPEG", "image/jpeg"), ("TIFF", "image/tiff")):
        document = reading.parse(saved(painted(), kind), "permit")
        assert document.text.split() == " ".join(LINES).split() and document.mime_type == mime_type
        assert document.warnings == ("page 1 read by OCR, which makes mistakes",)
    assert reading.isolation.no_programs == reading.isolation.no_sockets


@needs_tesseract
def test_scanned_pages_stand_in_their_place(reading: ParserSandbox) -> None:
    document = reading.parse(mixed(), "permit.pdf")
    pages = [(element.page, document.text[element.start : element.end]) for element in document.elements]
    assert [page for page, _ in pages] == sorted(page for page, _ in pages if page)
    assert " ".join(text for page, text in pages if page == 2).split() == " ".join(LINES).split()
    assert pages[0] == (1, "The first page has text.") and pages[-1] == (3, "The last page has text.")
    assert document.warnings == ("page 2 read by OCR, which makes mistakes",)


@needs_tesseract
def test_words_that_it_is_not_sure_of_are_flagged() -> None:
    blurred = painted().filter(ImageFilter.GaussianBlur(7))
    document = parse_file(saved(blurred, "PNG"), limits=READ)
    assert {flag.kind for flag in document.flags} == {"doubtful_reading"}
    assert all(document.text[flag.start : flag.end].strip() for flag in document.flags)
    assert not parse_file(saved(painted(), "PNG"), limits=READ).flags


@needs_tesseract
def test_every_page_of_a_tiff_is_read_and_counts() -> None:
    two = saved(painted(), "TIFF", save_all=True, append_images=[painted(("The third line is here.",))])
    document = parse_file(two, limits=READ)
    assert [element.page for element in document.elements][-1] == 2 and document.text.endswith("is here.")
    with pytest.raises(ParserLimit, match="more than 1 pages"):
        parse_file(two, limits=ParseLimits(ocr_languages="eng", pages=1))


@needs_tesseract
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ParseLimits(ocr_languages="eng", ocr_page_seconds=0.001), "within 0.001 s a page"),
        (ParseLimits(ocr_languages="eng", ocr_seconds=0), "within 30 s a page and 0 s for all"),
        (ParseLimits(ocr_languages="eng", ocr_pixels=100_000), "CITADEL_OCR_PIXELS"),
    ],
)
def test_what_is_over_a_limit_is_said(limits: ParseLimits, said: str) -> None:
    with pytest.raises(EmptyDocument, match=said):
        parse_file(saved(painted(), "PNG"), limits=limits)


@needs_tesseract
def test_the_rest_of_a_pdf_does_not_wait_for_its_scans() -> None:
    document = parse_file(mixed(), limits=ParseLimits(ocr_languages="eng", ocr_page_seconds=0.001))
    assert document.text == "The first page has text.\n\nThe last page has text."
    assert "page 2 not read by OCR within" in document.warnings[0]


@needs_tesseract
def test_pictures_made_to_do_harm_end_in_a_typed_refusal(reading: ParserSandbox) -> None:
    bomb = saved(Image.new("1", (9_000, 9_000)), "PNG")
    assert len(bomb) < 20_000
    with pytest.raises((EmptyDocument, CorruptDocument), match=r"PIXELS|DecompressionBomb"):
        reading.parse(bomb, "bomb.png")
    whole = saved(painted(), "PNG")
    for cut in (60, len(whole) // 2):
        with pytest.raises((CorruptDocument, UnsupportedType, EmptyDocument)):
            reading.parse(whole[:cut], "cut.png")
    with pytest.raises(EmptyDocument, match="finds no text"):
        reading.parse(saved(Image.new("L", (400, 400), "white"), "PNG"), "blank.png")


@needs_tesseract
@pytest.mark.parametrize(("languages", "said"), [("eng+xyz", "install tesseract-ocr"), ("../eng", "eng")])
def test_a_language_that_is_not_there(languages: str, said: str) -> None:
    with pytest.raises(OcrUnavailable, match=said):
        parse_file(saved(painted(), "PNG"), limits=ParseLimits(ocr_languages=languages))


def test_without_tesseract_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "LIBRARIES", ("libtesseract.so.absent",))
    with pytest.raises(OcrUnavailable, match="tesseract is not installed: install tesseract-ocr"):
        parse_file(saved(painted(), "PNG"), limits=READ)
    document = parse_file(mixed(), limits=READ)
    assert document.text == "The first page has text.\n\nThe last page has text."
    assert document.warnings[0] == "page 2 holds no text: a scan?" and "not installed" in document.warnings[1]


def test_off_means_that_pictures_are_not_read() -> None:
    with pytest.raises(UnsupportedType, match="CITADEL_OCR=on"):
        parse_file(saved(painted(), "PNG"))
    with pytest.raises(EmptyDocument, match="CITADEL_OCR=on"):
        parse_file(saved(painted(), "PDF"))
    assert parse_file(mixed()).warnings == ("page 2 holds no text: a scan?",)


def test_the_settings_reach_the_parser() -> None:
    off, on = limits_of(Settings()), limits_of(Settings(ocr="on", ocr_languages="eng+deu", ocr_seconds=120))
    assert off.ocr_languages == "" and off.wall_seconds == ParseLimits().wall_seconds
    assert (on.ocr_languages, on.wall_seconds - off.wall_seconds, on.cpu_seconds - off.cpu_seconds) == (
        "eng+deu", 120, 120
    )  # fmt: skip
    with pytest.raises(Misconfigured, match="on or off"):
        limits_of(Settings(ocr="yes"))
