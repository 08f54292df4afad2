"""Bytes of a known type to canonical text, in the calling process; strangers' files go through `ingest/sandbox.py`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from core.errors import CitadelError, CorruptDocument, ParserLimit
from core.records import ParsedDocument
from ingest.confine import USUAL, ParseLimits
from ingest.parsers import book, docx, mail, markdown, markup, pdf, picture, plain, pptx, table
from ingest.parsers.attached import within
from ingest.parsers.samples import samples
from ingest.sniff import sniff, unsupported

Parser = Callable[[bytes], ParsedDocument]

PARSERS: dict[str, Parser] = {
    "text/plain": plain.parse_text,
    "text/markdown": markdown.parse_markdown,
    "text/x-rst": plain.parse_rst,
    "text/org": plain.parse_org,
    "text/html": markup.parse_html,
    "text/csv": table.parse_csv,
    "text/tab-separated-values": table.parse_csv,
    "application/json": plain.parse_json,
    "application/x-ndjson": plain.parse_json_lines,
    "application/xml": markup.parse_xml,
    "message/rfc822": mail.parse_eml,
    mail.OUTLOOK: mail.parse_msg,
    pdf.MIME_TYPE: pdf.parse_pdf,
    docx.MIME_TYPE: docx.parse_docx,
    pptx.MIME_TYPE: pptx.parse_pptx,
    table.XLSX: table.parse_xlsx,
    book.EPUB: book.parse_epub,
    book.ODT: book.parse_odt,
}

# Those that need to know what a document may cost.
_LIMITED = {
    pdf.MIME_TYPE: pdf.parse_pdf,
    table.XLSX: table.parse_xlsx,
    "text/csv": table.parse_csv,
    "text/tab-separated-values": table.parse_csv,
    **dict.fromkeys(picture.MIME_TYPES, picture.parse_picture),
}

_LIBRE_OFFICE = "the old binary format needs LibreOffice, which is not used here; save it as {} and submit that"
# Types that people do submit, and what they can do about them.
REFUSED = {
    **dict.fromkeys(picture.MIME_TYPES, "it is a picture; the text on pictures is read with CITADEL_OCR=on"),
    "application/msword": _LIBRE_OFFICE.format("docx"),
    "application/vnd.ms-powerpoint": _LIBRE_OFFICE.format("pptx"),
    "application/vnd.ms-excel": _LIBRE_OFFICE.format("xlsx"),
    "application/vnd.ms-excel.sheet.binary.macroenabled.12": "save it as xlsx and submit that",
    "application/rtf": "RTF needs the program pandoc, which is not used here; save it as docx and submit that",
    "application/mbox": "it is a mailbox of several messages; submit each as an eml",
    "application/zip": "it is an archive of files; submit each of them",
}


def parse_file(
    content: bytes, filename: str | None = None, declared: str | None = None, limits: ParseLimits = USUAL
) -> ParsedDocument:
    """The canonical text of a file of any type; raises the errors under Unparseable."""
    return parse(content, sniff(content, filename, declared), limits)


def warm() -> None:
    """Parse a small file of each kind that loads a library late, so that whoever forks finds it loaded."""
    for content, declared in samples():
        parse_file(content, declared=declared)


def parse(content: bytes, mime_type: str, limits: ParseLimits = USUAL) -> ParsedDocument:
    """The canonical text of a file whose type `ingest.sniff.sniff` told.

    Raises the errors under Unparseable and no others: what a library raises means that the file is not what its type
    promises. The message names the library's error but not its text, which may quote the document.
    """
    parser = partial(_LIMITED[mime_type], limits=limits) if mime_type in _LIMITED else PARSERS.get(mime_type)
    if parser is None or (mime_type in picture.MIME_TYPES and not limits.ocr_languages):
        raise unsupported(mime_type, REFUSED.get(mime_type, ""))
    try:
        return within(replace(parser(content), mime_type=mime_type), limits)
    except CitadelError:
        raise
    except MemoryError as error:
        raise ParserLimit("the file needs more memory than is allowed") from error
    except RecursionError as error:
        raise ParserLimit("the file is nested too deeply to read") from error
    except Exception as error:
        raise CorruptDocument(f"the {mime_type} file is damaged ({type(error).__name__})") from error
