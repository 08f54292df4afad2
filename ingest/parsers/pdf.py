"""PDF by pypdfium2: lines in reading order, gathered into paragraphs and headings by where they stand on their page."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import pypdfium2  # type: ignore[import-untyped]

from core.errors import CorruptDocument, EmptyDocument, EncryptedDocument, ParserLimit
from core.records import ParsedDocument
from ingest.parsers.canonical import assemble
from ingest.parsers.pdf_blocks import pieces
from ingest.parsers.pdf_lines import page_lines
from ingest.parsers.pdf_running import without_running

MIME_TYPE = "application/pdf"

_TAIL_BYTES = 4096  # where readers look for the end of a PDF; the standard says 1024, writers append more
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_JUNK_TITLE = re.compile(
    r"^(?:microsoft \w+ - .*|untitled.*|.*\.(?:docx?|pdf|indd|qxd|xlsx?|pptx?|tex|dvi|ps|rtf))$", re.I
)


def parse_pdf(content: bytes, max_pages: int = 5000) -> ParsedDocument:
    """Every line with its page. Raises EncryptedDocument, CorruptDocument, ParserLimit, and EmptyDocument for scans."""
    document = _open(content)
    try:
        if len(document) > max_pages:
            raise ParserLimit(f"the PDF has {len(document)} pages; {max_pages} are allowed")
        pages = [page_lines(document, index) for index in range(len(document))]
        title = document.get_metadata_value("Title").strip()
    finally:
        document.close()
    blank = [number for number, lines in enumerate(pages, start=1) if not lines]
    if len(blank) == len(pages):
        raise EmptyDocument(
            f"none of the PDF's {len(pages)} pages holds text: it seems scanned, and OCR is not enabled"
        )
    lines = [line for lines in without_running(pages) for line in lines]
    return assemble(pieces(lines), MIME_TYPE, None if _JUNK_TITLE.match(title) else title, _warnings(blank))


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
    if len(blank) == 1:
        return [f"page {blank[0]} holds no text: a scan?"]
    return [f"pages {', '.join(_ranges(blank))} hold no text: scans?"]


def _ranges(numbers: Iterable[int]) -> Iterator[str]:
    """1, 2, 3, 7 as "1-3", "7"."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}"
