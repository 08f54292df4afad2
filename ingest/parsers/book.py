"""E-books and OpenDocument texts: zip archives of XHTML chapters, or of one XML tree."""

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from core.errors import CorruptDocument, EncryptedDocument
from core.records import ParsedDocument
from ingest.parsers.archive import open_archive, read_part, xml_root
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.decode import decode
from ingest.parsers.markup import read_page
from ingest.parsers.partition import MAX_SPAN, table_piece

EPUB = "application/epub+zip"
ODT = "application/vnd.oasis.opendocument.text"

_OPF = "{http://www.idpf.org/2007/opf}"
_DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_UNSEEN = (f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_OFFICE}forms")


def parse_epub(content: bytes) -> ParsedDocument:
    """The chapters in the order of the spine, read as HTML; a chapter that is missing is named in a warning."""
    with open_archive(content) as archive:
        container = xml_root(read_part(archive, "META-INF/container.xml"))
        rootfile = container.find(f".//{_CONTAINER}rootfile")
        opf = rootfile.get("full-path", "") if rootfile is not None else ""
        book = xml_root(read_part(archive, opf))
        hrefs = {item.get("id"): unquote(item.get("href", "")) for item in book.iter(f"{_OPF}item")}
        chapters = [hrefs.get(item.get("idref"), "") for item in book.iter(f"{_OPF}itemref")]
        names = [posixpath.normpath(posixpath.join(posixpath.dirname(opf), chapter)) for chapter in chapters if chapter]
        texts = {name: decode(read_part(archive, name)).text for name in names}
    pages = [read_page(text) for text in texts.values()]
    warnings = [f"the chapter {name!r} is missing" for name, text in texts.items() if not text]
    warnings += (warning for page in pages for warning in page.warnings)
    return assemble(
        (piece for page in pages for piece in page.pieces), EPUB, book.findtext(f".//{_DC_TITLE}"), warnings
    )


def parse_odt(content: bytes) -> ParsedDocument:
    """Headings by outline level, list items, tables by rows and paragraphs, text boxes in their place; no pages."""
    with open_archive(content) as archive:
        manifest = read_part(archive, "META-INF/manifest.xml")
        if b"encryption-data" in manifest:
            raise EncryptedDocument("the document asks for a password; remove it and submit it again")
        root = xml_root(read_part(archive, "content.xml"))
        meta = read_part(archive, "meta.xml")
    body = root.find(f"{_OFFICE}body/{_OFFICE}text")
    if body is None:
        raise CorruptDocument("the OpenDocument file holds no text document")
    title = xml_root(meta).findtext(f".//{_DC_TITLE}") if meta else None
    return assemble(_odt_pieces(body, listed=False), ODT, title)


def _odt_pieces(parent: Any, listed: bool) -> Iterator[Piece]:
    """The blocks under a node in order; `listed` where they stand in a list item."""
    for node in parent:
        if node.tag in _UNSEEN or not isinstance(node.tag, str):
            continue
        if node.tag == f"{_TEXT}h":
            level = node.get(f"{_TEXT}outline-level", "1")
            yield Piece("heading", _inline(node), level=int(level) if level.isdecimal() else 1)
        elif node.tag == f"{_TEXT}p":
            yield Piece("list_item" if listed else "paragraph", _inline(node))
            yield from _boxes(node, listed)
        elif node.tag == f"{_TABLE}table":
            yield table_piece(_odt_rows(node))
        else:
            yield from _odt_pieces(node, listed or node.tag == f"{_TEXT}list")


def _boxes(paragraph: Any, listed: bool) -> Iterator[Piece]:
    """The paragraphs in frames that a paragraph anchors."""
    for node in paragraph.iterdescendants(f"{_TEXT}p", f"{_TEXT}h"):
        if next(node.iterancestors(f"{_TEXT}p", f"{_TEXT}h")) is paragraph and not _unseen(node, paragraph):
            yield Piece("list_item" if listed else "paragraph", _inline(node))
            yield from _boxes(node, listed)


def _unseen(node: Any, within: Any) -> bool:
    return any(above.tag in _UNSEEN for above in node.iterancestors() if above is not within)


def _odt_rows(table: Any) -> Iterator[list[str]]:
    for row in table.iter(f"{_TABLE}table-row"):
        cells: list[str] = []
        for cell in row.iterchildren(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
            repeated = cell.get(f"{_TABLE}number-columns-repeated", "1")
            text = " ".join(_inline(block) for block in cell.iter(f"{_TEXT}p", f"{_TEXT}h"))
            cells += [text] * (min(int(repeated), MAX_SPAN) if repeated.isdecimal() else 1)
        yield cells


def _inline(node: Any) -> str:
    """The text of one paragraph without that of frames in it; spaces, tabs and line breaks as they are written."""
    words = [node.text or ""]
    for child in node:
        if child.tag == f"{_TEXT}s":
            words.append(" ")
        elif child.tag in (f"{_TEXT}tab", f"{_TEXT}line-break"):
            words.append("\t" if child.tag == f"{_TEXT}tab" else "\n")
        elif isinstance(child.tag, str) and child.tag not in (*_UNSEEN, f"{_TEXT}p", f"{_TEXT}h"):
            words.append(_inline(child))
        words.append(child.tail or "")
    return "".join(words)
