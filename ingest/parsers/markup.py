"""HTML and XML: `unstructured` reads the page as a browser shows it, after what it would lose has been renamed.

Left alone it drops forms, figures, details and struck-out text, breaks half-bold words inside table cells, and turns a
table that only lays out a page (most HTML mail) into one cell.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree, html  # type: ignore[import-untyped]

from core.records import ParsedDocument
from ingest.parsers.archive import refuse_depth, xml_root
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.decode import decode
from ingest.parsers.offline import prepare
from ingest.parsers.partition import cell_text, grid, pieces_of
from ingest.parsers.unseen import mark_page

_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_CHARSET_BYTES = 4096
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_UNSEEN = (
    *(
        "audio",
        "canvas",
        "datalist",
        "embed",
        "head",
        "iframe",
        "input",
        "link",
        "meta",
        "noembed",
        "noframes",
        "object",
    ),
    *("noscript", "script", "select", "style", "svg", "template", "textarea", "video"),
)
_AS_DIV = ("details", "dialog", "fieldset", "figcaption", "figure", "form", "frameset", "legend", "summary")
_AS_SPAN = ("acronym", "button", "del", "font", "ins", "label", "nobr")
_GRID = ("thead", "tbody", "tfoot", "tr", "td", "th", "caption")
_LAYOUT_INSIDE = ("table", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "form")
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all", re.IGNORECASE)
_NO_SIZE = re.compile(r"font-size\s*:\s*0(?![.\d]*[1-9])", re.IGNORECASE)
_MAIN_SHARE = 0.5  # of a page's text; a <main> with less holds only a part of what the page says


def parse_html(content: bytes) -> ParsedDocument:
    """Headings with levels, list items, tables by rows and paragraphs of what a browser would show; no pages."""
    page = parse_page(content)
    return assemble(page.pieces, "text/html", page.title, page.warnings)


@dataclass(frozen=True, slots=True)
class Page:
    """What an HTML text shows."""

    pieces: tuple[Piece, ...]
    title: str | None
    warnings: tuple[str, ...]


def parse_page(content: bytes) -> Page:
    """The pieces of an HTML file in the encoding that it states, or the likeliest."""
    decoded = decode(content, _charset(content))
    page = read_page(decoded.text)
    return replace(page, warnings=(*page.warnings, *decoded.warnings))


def read_page(text: str) -> Page:
    """The pieces of an HTML document or fragment, such as a mail's body; no pieces when it shows nothing."""
    prepare()
    from unstructured.partition.html import partition_html

    parser = html.HTMLParser()
    try:
        root = html.document_fromstring(_XML_DECLARATION.sub("", text.replace("\x00", "")), parser)
        refuse_depth(parser)
    except (etree.ParserError, ValueError):
        return Page((), None, ())
    title = root.findtext(".//title")
    hidden = _drop_unseen(root)
    mark_page(root)
    _rename(root)
    _number_items(root)
    for table in list(root.iter("table")):
        _settle_table(table)
    markup = etree.tostring(root, method="html", encoding="unicode")
    warnings = (f"parts of the page that a browser does not show were left out: {hidden}",) if hidden else ()
    return Page(tuple(pieces_of(partition_html(text=markup, languages=[""]))), title, warnings)


def _charset(content: bytes) -> str | None:
    """The encoding that a page's head or an XML declaration states."""
    found = _CHARSET.search(content[:_CHARSET_BYTES])
    return found.group(1).decode("ascii", "replace") if found else None


def _drop_unseen(root: Any) -> int:
    """Take out what no browser shows; how many parts were hidden by style or attribute and did hold text."""
    etree.strip_elements(root, etree.Comment, etree.PI, *_UNSEEN, with_tail=False)
    hidden = 0
    for node in [node for node in root.iter() if _is_hidden(node)]:
        if node.getparent() is not None:
            hidden += bool(node.text_content().strip())
            node.drop_tree()
    return hidden


def _is_hidden(node: Any) -> bool:
    style = node.get("style", "")
    if "hidden" in node.attrib or _NOT_SHOWN.search(style):
        return True
    # Mail templates set a cell's size to 0 and give one to each part in it.
    return bool(_NO_SIZE.search(style)) and not any(
        "font" in child.get("style", "") for child in node.iterdescendants()
    )


def _rename(root: Any) -> None:
    """Give what `unstructured` would drop the name of what it keeps; an image becomes its alternative text."""
    for node in list(root.iter("img", "main", *_AS_DIV, *_AS_SPAN)):
        if node.tag == "img":
            node.text = node.get("alt")
        if node.tag in _AS_DIV or (node.tag == "main" and not _is_core(node, root)):
            node.tag = "div"
        elif node.tag != "main":
            node.tag = "span"


def _is_core(main: Any, root: Any) -> bool:
    """Whether a page's <main> holds most of its text, so that the rest is its frame."""
    return len(main.text_content()) >= _MAIN_SHARE * len(root.text_content())


def _number_items(root: Any) -> None:
    """Write the numbers of ordered lists into their items."""
    for numbered in root.iter("ol"):
        start = numbered.get("start", "1")
        for number, item in enumerate(numbered.iterchildren("li"), start=int(start) if start.isdecimal() else 1):
            while (
                not (item.text or "").strip() and len(item) and item[0].tag in ("p", "div", "span", "a", "b", "strong")
            ):
                item = item[0]  # noqa: PLW2901
            item.text = f"{number}. {(item.text or '').lstrip()}"


def _settle_table(table: Any) -> None:
    """A table of data as plain rows and cells; one that only lays out the page as blocks."""
    rows = grid(table)
    if table.get("role") == "presentation" or max(map(len, rows), default=0) < 2 or _holds(table, _LAYOUT_INSIDE):
        own = [node for node in table.iterdescendants(*_GRID) if next(node.iterancestors("table")) is table]
        for node in [table, *own]:
            node.tag = "div"
        return
    caption = table.find("caption")
    if caption is not None:
        above = html.Element("p")
        above.text = cell_text(caption)
        table.addprevious(above)
    tail = table.tail
    table.clear()
    table.tail = tail
    for cells in rows:
        row = etree.SubElement(table, "tr")
        for text in cells:
            etree.SubElement(row, "td").text = text


def _holds(node: Any, tags: tuple[str, ...]) -> bool:
    return next(node.iterdescendants(*tags), None) is not None


def parse_xml(content: bytes) -> ParsedDocument:
    """The text of each element that holds any, a line for each; tags are left out, entities are not resolved."""
    root = xml_root(content)
    pieces = [Piece("paragraph", text) for node in root.iter() for text in _own_texts(node)]
    return assemble(pieces, "application/xml", None, ())


def _own_texts(node: Any) -> Iterator[str]:
    """What stands directly in an element, and behind it."""
    if isinstance(node.tag, str) and (node.text or "").strip():
        yield node.text
    if (node.tail or "").strip():
        yield node.tail
