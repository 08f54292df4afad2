"""What type a file is: its bytes decide, its name and what its submitter says only tell apart one text from another."""

import io
import json
import posixpath
import re
import zipfile

import filetype  # type: ignore[import-untyped]
import olefile  # type: ignore[import-untyped]

from core.errors import CorruptDocument, EmptyDocument, EncryptedDocument, UnsupportedType
from ingest.parsers.decode import decode, looks_like_text

SUPPORTED = "md, txt, html, pdf, docx, pptx, xlsx, csv, tsv, eml, msg, json, jsonl, xml, epub, odt, rst, org"

_BY_EXTENSION = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdx": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".xml": "application/xml",
    ".eml": "message/rfc822",
    ".rst": "text/x-rst",
    ".org": "text/org",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".log": "text/plain",
}
_DECLARED = {"application/xhtml+xml": "text/html", "text/xml": "application/xml", "text/x-markdown": "text/markdown"}
_DECLARED |= {"application/csv": "text/csv", "application/jsonl": "application/x-ndjson"}
_OFFICE = "application/vnd.openxmlformats-officedocument."
_IN_ZIP = (
    ("word/", f"{_OFFICE}wordprocessingml.document"),
    ("ppt/", f"{_OFFICE}presentationml.presentation"),
    ("xl/", f"{_OFFICE}spreadsheetml.sheet"),
)
_IN_OLE = (
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("Book", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
)
_BINARY = (".pdf", ".docx", ".pptx", ".xlsx", ".msg", ".epub", ".odt")  # what we read, and is never text
_HEAD = 16 * 1024  # bytes in which a text shows what it is
_PDF_LEAD = 1024  # bytes of anything that readers accept before %PDF-
_HEADER_LINE = re.compile(r"[!-9;-~]+:[ \t\r]|[!-9;-~]+:$")
_MAIL_FIELDS = frozenset(("from", "to", "date", "subject", "cc", "reply-to", "sender", "x-mailer", "content-type"))
_SURE_FIELDS = frozenset(("received", "message-id", "mime-version", "return-path", "delivered-to", "x-received"))
_MAIL_LEAST = 3  # fields of mail that make a text one, or two with one that only mail has
_FIRST_TAG = re.compile(
    r"\A\s*(?:<\?xml[^>]*\?>\s*|<!--.*?-->\s*|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>\s*)*<([\w:-]+)", re.S | re.I
)


def sniff(content: bytes, filename: str | None = None, declared: str | None = None) -> str:
    """The MIME type of a file. Raises EmptyDocument, UnsupportedType, EncryptedDocument or CorruptDocument."""
    if not content.strip(b"\x00 \t\r\n"):
        raise EmptyDocument("the file is empty" if not content else "the file holds nothing but blanks")
    extension = posixpath.splitext((filename or "").lower())[1]
    if content.lstrip()[:5] == b"%PDF-" or (extension == ".pdf" and b"%PDF-" in content[:_PDF_LEAD]):
        return "application/pdf"
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(content)
    if content.startswith(olefile.MAGIC):
        return _sniff_ole(content)
    if content.lstrip()[:5] == b"{\\rtf":
        return "application/rtf"
    if looks_like_text(content):
        return _sniff_text(content, extension, declared)
    return _binary(content, extension)


def unsupported(mime_type: str, reason: str = "") -> UnsupportedType:
    """The refusal of a type, with what is read instead."""
    return UnsupportedType(f"{mime_type} is not read{': ' + reason if reason else ''}; supported are {SUPPORTED}")


def _binary(content: bytes, extension: str) -> str:
    """The type of an image, archive or program by its magic; raises when none is known."""
    guess = filetype.guess_mime(content)
    if guess is None and extension in _BINARY:
        raise CorruptDocument(f"the file is named {extension}, but its bytes are not that; it may be damaged")
    if guess is None:
        raise unsupported("application/octet-stream", "the bytes are neither text nor a known type of document")
    return str(guess)


def _sniff_zip(content: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            stated = archive.read("mimetype")[:100].decode("ascii", "replace").strip() if "mimetype" in names else ""
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise CorruptDocument("the file is cut off or damaged: its zip directory cannot be read") from error
    if stated:
        return stated
    if "xl/workbook.bin" in names:
        return "application/vnd.ms-excel.sheet.binary.macroenabled.12"
    if any(name.lower() == "[content_types].xml" for name in names):
        return next(
            (mime for folder, mime in _IN_ZIP if any(name.startswith(folder) for name in names)), "application/zip"
        )
    return "application/zip"


def _sniff_ole(content: bytes) -> str:
    try:
        with olefile.OleFileIO(io.BytesIO(content)) as ole:
            streams = {entry[0] for entry in ole.listdir()}
    except (OSError, ValueError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise CorruptDocument("the file is cut off or damaged: its OLE directory cannot be read") from error
    if "EncryptedPackage" in streams:
        raise EncryptedDocument("the Office file asks for a password; remove it and submit it again")
    return next((mime for stream, mime in _IN_OLE if stream in streams), "application/x-ole-storage")


def _sniff_text(content: bytes, extension: str, declared: str | None) -> str:
    """What the text's first lines show; else its extension; else what is declared; else plain text."""
    head = decode(content[:_HEAD]).text.lstrip("\ufeff")
    stated = (declared or "").partition(";")[0].strip().lower()
    stated = _DECLARED.get(stated, stated)
    named = _BY_EXTENSION.get(extension) or (stated if stated in _BY_EXTENSION.values() else None)
    if _is_mailbox(head):
        return "application/mbox"
    if _is_mail(head):
        return "message/rfc822"
    if markup := _markup(head):
        return markup
    if named in (None, "text/plain") and _is_json(content):
        return "application/json"
    return named or "text/plain"


def _is_mailbox(head: str) -> bool:
    """More than one message, each behind a line that begins with From and a space."""
    return bool(re.match(r"From \S+ .*\n", head)) and len(re.findall(r"^From \S+ .*\n[\w-]+:", head, re.M)) > 1


def _is_mail(head: str) -> bool:
    """Whether the lines before the first blank one are all header fields, enough of them fields of mail."""
    lines = head.partition("\n\n")[0].replace("\r\n", "\n").partition("\n\n")[0].split("\n")
    if lines and re.match(r">?From \S+ ", lines[0]):
        lines = lines[1:]
    fields = [line.partition(":")[0].lower() for line in lines if not line.startswith((" ", "\t"))]
    if not fields or not all(_HEADER_LINE.match(line) for line in lines if line[:1] not in (" ", "\t", "")):
        return False
    sure = len(_SURE_FIELDS.intersection(fields))
    return len(_MAIL_FIELDS.intersection(fields)) + 2 * sure >= _MAIL_LEAST


def _markup(head: str) -> str | None:
    """HTML by its doctype or root, XML by its declaration; a fragment of either is told by its name only."""
    lead = head.lstrip()[:64].lower()
    if not lead.startswith("<"):
        return None
    found = _FIRST_TAG.match(head)
    root = found.group(1).lower().rpartition(":")[2] if found else ""
    if lead.startswith("<!doctype html") or root == "html":
        return "text/html"
    return "application/xml" if lead.startswith("<?xml") else None


def _is_json(content: bytes) -> bool:
    """Whether the whole is one JSON object or list."""
    if content.strip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(decode(content).text, parse_int=str, parse_float=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
