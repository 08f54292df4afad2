"""PDF by pypdfium2: lines in reading order, gathered into paragraphs and headings by where they stand on their page."""

import re
from collections.abc import Sequence
from functools import partial
from heapq import merge
from typing import Any

import pypdfium2  # type: ignore[import-untyped]

from core.errors import CorruptDocument, EmptyDocument, EncryptedDocument, OcrUnavailable, ParserLimit
from core.records import ParsedDocument
from ingest.confine import USUAL, ParseLimits
from ingest.parsers.canonical import assemble
from ingest.parsers.ocr import DPI, LEAST_DPI, Paint, Picture, Scans, pages_of, read_pictures
from ingest.parsers.pdf_blocks import pieces
from ingest.parsers.pdf_lines import page_lines
from ingest.parsers.pdf_running import without_running

MIME_TYPE = "application/pdf"

_TAIL_BYTES = 4096  # where readers look for the end of a PDF; the standard says 1024, writers append more
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_POINTS = 72  # an inch, of PDF's own unit
_NO_OCR = "With CITADEL_OCR=on pictures of text are read"
_JUNK_TITLE = re.compile(
    r"^(?:microsoft \w+ - .*|untitled.*|.*\.(?:docx?|pdf|indd|qxd|xlsx?|pptx?|tex|dvi|ps|rtf))$", re.I
)


def parse_pdf(content: bytes, limits: ParseLimits = USUAL) -> ParsedDocument:
    """Every line with its page, and with OCR what stands on pages that are pictures.

    Raises EncryptedDocument, CorruptDocument, ParserLimit, and for scans EmptyDocument or OcrUnavailable.
    """
    document = _open(content)
    try:
        if len(document) > limits.pages:
            raise ParserLimit(f"the PDF has {len(document)} pages; {limits.pages} are allowed")
        pages = [page_lines(document, index) for index in range(len(document))]
        title = document.get_metadata_value("Title").strip()
        blank = [number for number, lines in enumerate(pages, start=1) if not lines]
        scans = _scans(document, blank, limits, whole=len(blank) == len(pages))
    finally:
        document.close()
    lines = [line for lines in without_running(pages) for line in lines]
    found = merge(pieces(lines) if lines else (), scans.pieces, key=lambda piece: piece.page or 0)
    return assemble(found, MIME_TYPE, None if _JUNK_TITLE.match(title) else title, scans.warnings)


def _scans(document: Any, blank: Sequence[int], limits: ParseLimits, whole: bool) -> Scans:
    """What stands on the pages without text; `whole`: there are no others."""
    if whole and not limits.ocr_languages:
        raise EmptyDocument(f"none of the PDF's {len(blank)} pages holds text: it seems scanned. {_NO_OCR}")
    if not blank or not limits.ocr_languages:
        return Scans((), tuple(_warnings(blank)))
    try:
        scans = read_pictures([(n, _painter(document, n, limits)) for n in blank if _opens(document, n)], limits)
    except OcrUnavailable as error:
        if whole:
            raise
        return Scans((), (*_warnings(blank), str(error)))
    unread = sorted(set(blank) - {piece.page for piece in scans.pieces})
    if whole and len(unread) == len(blank):
        raise EmptyDocument("; ".join((f"OCR finds no text on any of the PDF's {len(blank)} pages", *scans.warnings)))
    return scans


def _opens(document: Any, number: int) -> bool:
    try:
        document[number - 1].close()
    except pypdfium2.PdfiumError:
        return False
    return True


def _painter(document: Any, number: int, limits: ParseLimits) -> Paint | None:
    """How to paint a page for OCR; None where it has too many points even at the least resolution."""
    page = document[number - 1]
    width, height = page.get_size()
    page.close()
    inches = max(width * height, 1.0) / _POINTS**2
    dpi = min(DPI, int((limits.ocr_pixels / inches) ** 0.5))
    return partial(_painted, document, number, dpi) if dpi >= LEAST_DPI else None


def _painted(document: Any, number: int, dpi: int) -> Picture:
    page = document[number - 1]
    bitmap = page.render(scale=dpi / _POINTS, grayscale=True)
    try:
        return Picture(bitmap.width, bitmap.height, bitmap.stride, bytes(bitmap.buffer), dpi)
    finally:
        bitmap.close()
        page.close()


def _open(content: bytes) -> Any:
    if b"%%EOF" not in content[-_TAIL_BYTES:] and b"startxref" not in content[-_TAIL_BYTES:]:
        raise CorruptDocument("the PDF is cut off: its end is missing; submit the whole file")
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR:
            raise EncryptedDocument("the PDF asks for a password; remove it and submit it again") from error
        raise CorruptDocument("the PDF is damaged: its structure cannot be read") from error
    if len(document) == 0:
        raise CorruptDocument("the PDF has no pages")
    if document.get_formtype() != pypdfium2.raw.FORMTYPE_NONE:
        document.init_forms()
    return document


def _warnings(blank: Sequence[int]) -> list[str]:
    if not blank:
        return []
    return [f"{pages_of(blank)} {'holds no text: a scan?' if len(blank) == 1 else 'hold no text: scans?'}"]
