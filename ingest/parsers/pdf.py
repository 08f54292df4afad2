"""PDF by pypdfium2: lines in reading order, gathered into paragraphs and headings by where they stand on their page."""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import pypdfium2  # type: ignore[import-untyped]

from core.errors import CorruptDocument, EmptyDocument, EncryptedDocument, ParserLimit
from core.records import ParsedDocument
from ingest.parsers.canonical import Piece, assemble

MIME_TYPE = "application/pdf"

_TAIL_BYTES = 4096  # where readers look for the end of a PDF; the standard says 1024, writers append more
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
# pdfium joins a line that ends in a hyphen to the next and marks the place.
_PARTED = re.compile("([^\\W\\d_]+)\ufffe([^\\W\\d_]+)")
_COMPOUND = re.compile(r"[^\W\d_]+-[^\W\d_]+")
_JUNK_TITLE = re.compile(
    r"^(?:microsoft \w+ - .*|untitled.*|.*\.(?:docx?|pdf|indd|qxd|xlsx?|pptx?|tex|dvi|ps|rtf))$", re.I
)

# Against the lines that most of the text is set in. A paragraph's gap is 1.5 lines and more in print; a heading is set
# at least a point larger than 8 to 12 point text.
_PARAGRAPH_PITCH = 1.35
_OTHER_SIZE = 0.12
_HEADING_SIZE = 1.12
_HEADING_LENGTH = 200  # code points
_HEADING_LINES = 3
_HEADING_SHARE = 0.3  # of the characters; where more of the text is large, size does not tell headings


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a page; lengths in points, 0 where the geometry is not known."""

    page: int
    text: str
    height: float  # of its first character's font
    top: float  # the base of its first character
    bottom: float  # the base of its last one: lower where a parted word joins two lines


def parse_pdf(content: bytes, max_pages: int = 5000) -> ParsedDocument:
    """Every line with its page. Raises EncryptedDocument, CorruptDocument, ParserLimit, and EmptyDocument for scans."""
    document = _open(content)
    try:
        if len(document) > max_pages:
            raise ParserLimit(f"the PDF has {len(document)} pages; {max_pages} are allowed")
        pages = [_lines(document, index) for index in range(len(document))]
        title = document.get_metadata_value("Title").strip()
    finally:
        document.close()
    blank = [number for number, lines in enumerate(pages, start=1) if not lines]
    if len(blank) == len(pages):
        raise EmptyDocument(
            f"none of the PDF's {len(pages)} pages holds text: it seems scanned, and OCR is not enabled"
        )
    pieces = _pieces(_mended([line for lines in pages for line in lines]))
    return assemble(pieces, MIME_TYPE, None if _JUNK_TITLE.match(title) else title, _warnings(blank))


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


def _lines(document: Any, index: int) -> list[_Line]:
    """The lines of a page in the order of its content, those without text left out; none where it cannot be read."""
    try:
        page = document[index]
        if document.formenv is not None:  # what was filled in is not in the page's own text until it is flattened
            page.flatten()
            page.close()
            page = document[index]
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError:
        return []
    try:
        text = textpage.get_text_range()
        places = _places(text, textpage.count_chars())
        return [_line(textpage, places, index + 1, found) for found in re.finditer(r"[^\r\n]*\S[^\r\n]*", text)]
    finally:
        textpage.close()
        page.close()


def _places(text: str, count: int) -> Sequence[int] | None:
    """pdfium's index of each character: it counts UTF-16 units. None where the counts do not agree."""
    if count == len(text):
        return range(count)
    units = [0, *accumulate(2 if character > "\uffff" else 1 for character in text)]
    return units if units[-1] == count else None


def _line(textpage: Any, places: Sequence[int] | None, page: int, found: re.Match[str]) -> _Line:
    raw = found.group()
    if places is None:
        return _Line(page, raw.strip(), 0.0, 0.0, 0.0)
    first = places[found.start() + len(raw) - len(raw.lstrip())]
    last = places[found.start() + len(raw.rstrip()) - 1]
    _, base, _, top = textpage.get_charbox(first, loose=True)
    _, end, _, _ = textpage.get_charbox(last, loose=True)
    return _Line(page, raw.strip(), round(top - base, 1), base, end)


def _mended(lines: Sequence[_Line]) -> list[_Line]:
    """The lines with parted words whole; a hyphen stays in a compound that the text also writes unparted, before a
    capital (Jean-Pierre) and beside digits (COVID-19).
    """
    compounds = {compound.lower() for line in lines for compound in _COMPOUND.findall(line.text)}

    def mend(parted: re.Match[str]) -> str:
        compound = f"{parted.group(1)}-{parted.group(2)}"
        whole = parted.group(2)[0].islower() and compound.lower() not in compounds
        return parted.group(1) + parted.group(2) if whole else compound

    return [replace(line, text=_PARTED.sub(mend, line.text).replace("\ufffe", "-")) for line in lines]


def _pieces(lines: Sequence[_Line]) -> Iterator[Piece]:
    levels = _heading_levels(lines)
    for _, on_page in groupby(lines, key=lambda line: line.page):
        for block in _blocks(list(on_page)):
            text = "\n".join(line.text for line in block)
            level = levels.get(block[0].height, 0)
            if level and len(block) <= _HEADING_LINES and len(text) <= _HEADING_LENGTH and _is_wordy(text):
                yield Piece("heading", " ".join(text.split()), level=level, page=block[0].page)
            else:
                yield Piece("paragraph", text, page=block[0].page)


def _blocks(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """The lines of a page, parted where the size changes, the gap is wide, or the text goes back up to a new column."""
    pitches = [above.bottom - below.top for above, below in zip(lines, lines[1:], strict=False)]
    usual = statistics.median([pitch for pitch in pitches if pitch > 1] or [0.0])
    block: list[_Line] = []
    for line, pitch in zip(lines, [0.0, *pitches], strict=True):
        if block and _parts(block[-1], line, pitch, usual):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _parts(above: _Line, below: _Line, pitch: float, usual: float) -> bool:
    if not above.height or not below.height:
        return False
    larger, smaller = max(above.height, below.height), min(above.height, below.height)
    if abs(pitch) < 0.6 * larger:
        return False  # the same row: a raised mark, or the next cell
    if larger - smaller > _OTHER_SIZE * larger or pitch < -smaller:
        return True
    return pitch > _PARAGRAPH_PITCH * max(min(usual, 1.5 * larger), 0.8 * larger)


def _heading_levels(lines: Sequence[_Line]) -> dict[float, int]:
    """The level of each line height that is larger than the text's own; empty where size does not tell headings."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.height] += len(line.text)
    body = weights.most_common(1)[0][0]
    large = sorted((height for height in weights if height > _HEADING_SIZE * body), reverse=True)
    if not body or sum(weights[height] for height in large) > _HEADING_SHARE * weights.total():
        return {}
    levels: dict[float, int] = {}
    level, reference = 0, float("inf")
    for height in large:
        if height < reference * (1 - _OTHER_SIZE / 2):
            level, reference = level + 1, height
        levels[height] = min(level, 6)
    return levels


def _is_wordy(text: str) -> bool:
    return sum(character.isalpha() for character in text) >= max(2, len(text) // 3)


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
