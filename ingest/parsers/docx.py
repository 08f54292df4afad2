"""Word documents: `unstructured` reads them, after what it would not see has been put where it looks.

Left alone it skips content controls, text boxes, tracked insertions, equations, footnotes, diagrams and Strict files
(measured on docling's documents: 9 of 33 lost between 5 and 100 % of their words).
"""

import io
from collections.abc import Iterator
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from core.errors import CorruptDocument
from core.records import ParsedDocument
from ingest.parsers.archive import CHUNKS, office_parts, related, repack, xml_root
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.decode import decode
from ingest.parsers.drawing import drawing_pieces, math_text
from ingest.parsers.mail import mail_body
from ingest.parsers.markup import parse_page
from ingest.parsers.offline import prepare
from ingest.parsers.partition import pieces_of
from ingest.parsers.unseen import mark_word

MIME_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_TEXT_BOX = f"{_W}txbxContent"
# Wrappers that hold runs or paragraphs which a reader sees.
_UNWRAP = tuple(f"{_W}{name}" for name in ("sdt", "sdtContent", "smartTag", "customXml", "ins", "moveTo", "fldSimple"))
_DROP = tuple(f"{_W}{name}" for name in ("sdtPr", "sdtEndPr", "del", "moveFrom", "lastRenderedPageBreak"))
_BODY = "word/document.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")


def parse_docx(content: bytes) -> ParsedDocument:
    """Headings by style, lists with labels, tables, text boxes after their paragraph, notes at the end; no pages."""
    prepare()
    from unstructured.partition.docx import partition_docx

    parts = office_parts(content)
    body = _main_part(parts)
    root = xml_root(parts[body])
    mark_word(root)
    parts = {**parts, body: _opened(root), **_outlined_styles(parts)}
    pieces = list(pieces_of(partition_docx(file=io.BytesIO(repack(parts)), languages=[""])))
    pieces += [*_chunks(parts, body), *_notes(parts), *drawing_pieces(parts, body)]
    return assemble(pieces, MIME_TYPE, _core_title(parts))


def _chunks(parts: dict[str, bytes], body: str) -> Iterator[Piece]:
    """The HTML, web archives and plain texts that the document embeds; some exporters put the whole text in one."""
    for name in related(parts, body, "aFChunk"):
        if name.endswith((".mht", ".mhtml")):
            yield from mail_body(parts[name])
        elif name.endswith(".txt"):
            yield Piece("paragraph", decode(parts[name]).text)
        elif name.endswith(CHUNKS):
            yield from parse_page(parts[name]).pieces


def _main_part(parts: dict[str, bytes]) -> str:
    """The name of the document's part; Word itself always calls it word/document.xml, others may not."""
    if _BODY in parts:
        return _BODY
    named = next(related(parts, "", "officeDocument"), None)
    if named is None:
        raise CorruptDocument("the Word file has no main part")
    return named


def _opened(root: Any) -> bytes:
    """The document with wrappers opened, text boxes after their paragraph, equations as text, one reading of each."""
    for alternative in list(root.iter(f"{_MC}AlternateContent")):
        for fallback in alternative.findall(f"{_MC}Fallback"):
            if alternative.find(f"{_MC}Choice") is not None:
                alternative.remove(fallback)
    _hoist_text_boxes(root)
    for math in list(root.iter(f"{_M}oMath")):
        _math_as_run(math)
    for ruby in list(root.iter(f"{_W}ruby")):  # characters with their reading above: the reading goes
        base = etree.Element(f"{_W}t")
        base.text = "".join(text.text or "" for text in ruby.iterfind(f"{_W}rubyBase//{_W}t"))
        ruby.getparent().replace(ruby, base)
    etree.strip_elements(root, *_DROP, with_tail=False)
    etree.strip_tags(root, *_UNWRAP, f"{_M}oMathPara", f"{_MC}AlternateContent", f"{_MC}Choice", f"{_MC}Fallback")
    return bytes(etree.tostring(root))


def _hoist_text_boxes(root: Any) -> None:
    """Move the paragraphs of each text box behind the paragraph that anchors it."""
    for box in reversed(list(root.iter(_TEXT_BOX))):  # inner boxes first
        anchor = next((node for node in box.iterancestors(f"{_W}p") if node.getparent() is not None), None)
        if anchor is not None:
            for block in reversed(list(box)):
                anchor.addnext(block)


def _math_as_run(math: Any) -> None:
    run = etree.Element(f"{_W}r")
    etree.SubElement(run, f"{_W}t").text = math_text(math)
    run.tail = math.tail
    math.getparent().replace(math, run)


def _outlined_styles(parts: dict[str, bytes]) -> dict[str, bytes]:
    """styles.xml with each style that has an outline level named as the built-in heading of that level."""
    if not parts.get("word/styles.xml"):
        return {}
    root = xml_root(parts["word/styles.xml"])
    styles = {style.get(f"{_W}styleId"): style for style in root.iter(f"{_W}style")}
    for style in styles.values():
        name, level = style.find(f"{_W}name"), _outline_level(style, styles)
        if name is not None and level is not None and style.get(f"{_W}type") == "paragraph":
            name.set(f"{_W}val", f"heading {level}")
    return {"word/styles.xml": bytes(etree.tostring(root))}


def _outline_level(style: Any, styles: dict[str, Any]) -> int | None:
    """1 to 9 as the style or the nearest style that it is based on says; None for body text."""
    seen: set[int] = set()
    while style is not None and id(style) not in seen:
        seen.add(id(style))
        level = style.find(f"{_W}pPr/{_W}outlineLvl")
        if level is not None:
            value = level.get(f"{_W}val", "9")
            return int(value) + 1 if value in set("012345678") else None
        base = style.find(f"{_W}basedOn")
        style = styles.get(base.get(f"{_W}val")) if base is not None else None
    return None


def _notes(parts: dict[str, bytes]) -> Iterator[Piece]:
    """Footnotes, then endnotes, a paragraph each."""
    for name in _NOTES:
        if not parts.get(name):
            continue
        for note in xml_root(parts[name]):
            if note.get(f"{_W}type") in (None, "normal"):
                yield Piece("paragraph", "".join(text.text or "" for text in note.iter(f"{_W}t")))


def _core_title(parts: dict[str, bytes]) -> str | None:
    """The title in the file's properties; None when it is not set."""
    if not parts.get("docProps/core.xml"):
        return None
    title = xml_root(parts["docProps/core.xml"]).find("{http://purl.org/dc/elements/1.1/}title")
    return None if title is None else title.text
