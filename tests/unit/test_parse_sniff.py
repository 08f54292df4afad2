"""The type of a file by its bytes, and by its name only where the bytes are plain text."""

import pytest

from core.errors import CorruptDocument, EmptyDocument, UnsupportedType
from ingest.parse import PARSERS
from ingest.sniff import SUPPORTED, sniff
from tests.unit.parsing import archive

MAIL = b"From: ana@acme.example\r\nTo: ben@acme.example\r\nSubject: Lunch\r\n\r\nAt noon.\r\n"
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + bytes(range(256))


@pytest.mark.parametrize(
    ("content", "filename", "declared", "expected"),
    [
        (b"%PDF-1.7\n...", "notes.txt", "text/plain", "application/pdf"),
        (b"\n %PDF-1.4", None, None, "application/pdf"),
        (b"{\\rtf1 hello}", "a.doc", None, "application/rtf"),
        (MAIL, "mail.txt", "text/plain", "message/rfc822"),
        (b"Title: a note\nStatus: draft\n\nSome text.\n", "note.md", None, "text/markdown"),
        (b"<!DOCTYPE html><p>x", "page.txt", None, "text/html"),
        (b'<?xml version="1.0"?><!-- c --><html xmlns="x"><body/></html>', None, None, "text/html"),
        (b'<?xml version="1.0"?><rss/>', "feed.html", None, "application/xml"),
        (b"<h1 align=center>Project</h1>\n\ntext", "README.md", None, "text/markdown"),
        (b"<p>a fragment</p>", "page.html", None, "text/html"),
        (b'{"a": [1, 2]}', "data.txt", None, "application/json"),
        (b"[link](https://example.com) and text", "note.md", None, "text/markdown"),
        (b"{not json", None, None, "text/plain"),
        (b"{not json", "a.json", None, "application/json"),
        (b'{"a": 1}\n{"b": 2}\n', "a.jsonl", None, "application/x-ndjson"),
        (b"a,b\n1,2\n", "a.csv", None, "text/csv"),
        (b"a,b\n1,2\n", None, "text/csv; charset=utf-8", "text/csv"),
        (b"just words", "unknown.xyz", "application/octet-stream", "text/plain"),
        (b"just words", None, "text/markdown", "text/markdown"),
        ("füße".encode("utf-16"), "a.md", None, "text/markdown"),
        (PNG, "photo.txt", "text/plain", "image/png"),
        (archive({"mimetype": "application/epub+zip"}), "book.zip", None, "application/epub+zip"),
        (archive({"readme.txt": "x"}), "a.docx", None, "application/zip"),
    ],
)
def test_sniff(content: bytes, filename: str | None, declared: str | None, expected: str) -> None:
    assert sniff(content, filename, declared) == expected


@pytest.mark.parametrize("part", ["word/document.xml", "ppt/presentation.xml", "xl/workbook.xml"])
def test_office_files_are_told_by_their_parts(part: str) -> None:
    content = archive({"[Content_Types].xml": "<Types/>", part: "<x/>"})
    family = {"word": "wordprocessingml.document", "ppt": "presentationml.presentation", "xl": "spreadsheetml.sheet"}
    assert sniff(content, "misleading.txt").endswith(family[part.partition("/")[0]])


def test_empty_and_blank_files_are_empty() -> None:
    for content in (b"", b" \r\n\t"):
        with pytest.raises(EmptyDocument):
            sniff(content, "report.docx")


def test_bytes_of_no_type_are_refused_with_what_is_supported() -> None:
    with pytest.raises(UnsupportedType, match="neither text nor.*supported are md, txt, html, pdf"):
        sniff(bytes(range(256)) * 20, "notes.txt")


def test_a_damaged_file_of_a_type_we_read_is_called_damaged() -> None:
    with pytest.raises(CorruptDocument, match=r"named \.pdf"):
        sniff(bytes(range(256)) * 20, "report.pdf")
    with pytest.raises(CorruptDocument, match="zip directory"):
        sniff(archive({"word/document.xml": "x" * 1000})[:-30], "report.docx")


def test_every_supported_name_has_a_parser() -> None:
    assert len(SUPPORTED.split(", ")) == len(PARSERS)
