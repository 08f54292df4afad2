"""Zip-based formats: refused before a library sees them when they would unpack to more than a document ever does."""

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from core.errors import CorruptDocument, EncryptedDocument, ParserLimit

MAX_ENTRIES = 20_000
MAX_UNPACKED = 768 * 1024**2  # bytes over all entries, as the central directory states them; zipfile reads no more
# Real office files stay below 60 : 1 as a whole (the largest of 300 in three public corpora); zeros reach 1000 : 1.
MAX_RATIO = 200
RATIO_FREE = 32 * 1024**2  # bytes unpacked below which no ratio is a danger

CHUNKS = (".htm", ".html", ".xhtml", ".mht", ".mhtml", ".txt")  # what a Word file may embed as a part of its text

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_TRANSITIONAL = rb"http://schemas.openxmlformats.org/\1/2006/\2"


def open_archive(content: bytes) -> zipfile.ZipFile:
    """The archive in `content`, checked; raises CorruptDocument, EncryptedDocument or ParserLimit."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise CorruptDocument("the file is cut off or damaged: its zip directory cannot be read") from error
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES:
        raise ParserLimit(f"the file holds {len(entries)} parts; {MAX_ENTRIES} are allowed")
    if unpacked > MAX_UNPACKED or (unpacked > RATIO_FREE and unpacked > MAX_RATIO * len(content)):
        raise ParserLimit(f"the file unpacks from {len(content)} to {unpacked} bytes; it may be a zip bomb")
    if any(entry.flag_bits & 1 for entry in entries):
        raise EncryptedDocument("the file's parts are encrypted; remove the password and submit it again")
    return archive


def read_part(archive: zipfile.ZipFile, name: str) -> bytes:
    """One part's bytes, empty when there is none; raises CorruptDocument when they are damaged."""
    try:
        return archive.read(name)
    except KeyError:
        return b""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise CorruptDocument(f"the part {name!r} of the file is damaged") from error


def office_parts(content: bytes) -> dict[str, bytes]:
    """The text parts of an OOXML package by name, Strict namespaces as Transitional; other parts are there but empty.

    Pictures, fonts and embedded files hold no text that is read, so their bytes go no further.
    """
    with open_archive(content) as archive:
        return {name: _office_part(archive, name) for name in archive.namelist() if not name.endswith("/")}


def _office_part(archive: zipfile.ZipFile, name: str) -> bytes:
    if name.lower().endswith((".xml", ".rels")):
        part = read_part(archive, name)
        if b"<!DOCTYPE" in part:  # the standard forbids it (ECMA-376 part 2); entities are all that it is good for
            raise CorruptDocument(f"the part {name!r} declares a document type, which Office files may not")
        return _STRICT.sub(_TRANSITIONAL, part)
    return read_part(archive, name) if name.lower().endswith(CHUNKS) else b""


def repack(parts: dict[str, bytes]) -> bytes:
    """The parts as a package again, stored without compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part)
    return buffer.getvalue()


def xml_root(part: bytes) -> Any:
    """The root of an XML part; entities and DTDs are neither fetched nor expanded.

    Raises CorruptDocument, and ParserLimit where elements are nested deeper than libxml2 reads (256).
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(part, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        refuse_depth(parser)
        raise CorruptDocument("a part of the file is not well-formed XML") from error


def refuse_depth(parser: Any) -> None:
    """Raise ParserLimit when lxml's parser gave up over nesting: of HTML it drops what is deeper without a word."""
    if any("xcessive depth" in entry.message for entry in parser.error_log):
        raise ParserLimit("the file's elements are nested too deeply to read; flatten it")


def related(parts: dict[str, bytes], owner: str, kind: str) -> Iterator[str]:
    """The names of the parts that `owner` ("" is the package) refers to as `kind`, those without bytes left out."""
    folder, name = posixpath.split(owner)
    relations = parts.get(posixpath.join(folder, "_rels", f"{name}.rels"))
    for relation in xml_root(relations) if relations else ():
        target = posixpath.normpath(posixpath.join(folder, relation.get("Target", ""))).lstrip("/")
        if relation.get("Type", "").endswith(f"/{kind}") and parts.get(target):
            yield target
