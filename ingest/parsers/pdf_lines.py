"""The lines of a PDF page by pdfium: their text, where they stand, whether they are bold, and what in them nobody sees.

pdfium is asked through its raw functions: pypdfium2's own objects cost twice as much a call, and there are six calls a
line.
"""

import ctypes
import re
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any, Literal, NamedTuple

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from ingest.parsers.canonical import HIDDEN_END, HIDDEN_START

# A sentence that steers a model is longer; asking for every character's look would double the time of a page.
_STRIDE = 20  # characters between two whose look is asked for
_TINY = 2.0  # points; print that a human reads has 5 and more
_NEAR_WHITE = 0xEC  # of 255, each colour of it
_CLEAR = 16  # of 255, below which ink does not cover what is under it
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_CONTRAST = 24  # of 255 between the darkest and the lightest point; below it a box shows nothing
_BOLD = re.compile(rb"bold|black|heavy|demi(?!ndi)", re.IGNORECASE)
_LINE = re.compile(r"\S(?:[^\r\n]*\S)?")
_NAME_BYTES = 128


class Line(NamedTuple):
    """One line of a page; lengths in points, 0 where the geometry is not known."""

    page: int
    text: str  # what nobody sees in it stands between HIDDEN_START and HIDDEN_END
    height: float  # of its first character's font
    top: float  # the base of its first character
    bottom: float  # the base of its last one: lower where a parted word joins two lines
    bold: bool = False
    margin: float = 0.5  # where its base stands on the page: 0 is the lower edge, 1 the upper


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float


# How a run of text is painted. Unseen is for sure: too small, or off the page. Suspect is white, clear or unpainted:
# unseen unless something stands behind it.
_Look = Literal["plain", "suspect", "unseen"]


def page_lines(document: Any, index: int) -> list[Line]:
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
        return _Reader(page, textpage, index + 1).lines()
    finally:
        textpage.close()
        page.close()


class _Reader:
    """One open page."""

    def __init__(self, page: Any, textpage: Any, number: int) -> None:
        self._page = page
        self._text = textpage.raw
        self._number = number
        self._whole = textpage.get_text_range()
        self._places = _places(self._whole, textpage.count_chars())
        self._edges = _Box(*page.get_bbox())
        self._rectangle = raw.FS_RECTF()
        self._colour = tuple(ctypes.c_uint() for _ in range(4))  # red, green, blue, alpha
        self._looks: dict[int, _Look] = {}  # by the address of pdfium's text object
        self._fonts: dict[int, bool] = {}  # by the address of its font: bold

    def lines(self) -> list[Line]:
        found = _LINE.finditer(self._whole)
        if self._places is None:
            return [Line(self._number, line.group(), 0.0, 0.0, 0.0) for line in found]
        return [self._line(self._places, line) for line in found]

    def _line(self, places: Sequence[int], found: re.Match[str]) -> Line:
        text, (start, end_of_text) = found.group(), found.span()
        first, last = places[start], places[end_of_text - 1]
        box, end = self._box(first), self._box(last)
        looks = {self._look(place) for place in range(first, last, _STRIDE)}
        looks.add(self._look(last))
        if looks != {"plain"}:
            text = self._with_hidden(text, places[start:end_of_text])
        tall = self._edges.top - self._edges.bottom
        margin = (box.bottom - self._edges.bottom) / tall if tall > 0 else 0.5
        bold = self._is_bold(first) and self._is_bold(last)
        return Line(self._number, text, round(box.top - box.bottom, 1), box.bottom, end.bottom, bold, margin)

    def _box(self, place: int) -> _Box:
        edges = self._rectangle
        raw.FPDFText_GetLooseCharBox(self._text, place, edges)
        return _Box(edges.left, edges.bottom, edges.right, edges.top)

    def _look(self, place: int) -> _Look:
        painted = raw.FPDFText_GetTextObject(self._text, place)
        if not painted:  # a space or a line break that pdfium made up
            return "plain"
        address = ctypes.addressof(painted.contents)
        look = self._looks.get(address)
        if look is None:
            look = self._looks[address] = self._ask(painted, place)
        return look

    def _ask(self, painted: Any, place: int) -> _Look:
        box, edges = self._rectangle, self._edges
        raw.FPDFText_GetLooseCharBox(self._text, place, box)
        off = box.right < edges.left or box.left > edges.right or box.top < edges.bottom or box.bottom > edges.top
        if off or 0 < box.top - box.bottom < _TINY:
            return "unseen"
        if raw.FPDFTextObj_GetTextRenderMode(painted) in _UNPAINTED:
            return "suspect"
        red, green, blue, alpha = self._colour
        raw.FPDFPageObj_GetFillColor(painted, red, green, blue, alpha)
        if alpha.value < _CLEAR or min(red.value, green.value, blue.value) >= _NEAR_WHITE:
            return "suspect"
        return "plain"

    def _is_bold(self, place: int) -> bool:
        painted = raw.FPDFText_GetTextObject(self._text, place)
        font = painted and raw.FPDFTextObj_GetFont(painted)
        if not font:
            return False
        address = ctypes.addressof(font.contents)
        if address not in self._fonts:
            name = ctypes.create_string_buffer(_NAME_BYTES)
            raw.FPDFFont_GetBaseFontName(font, name, _NAME_BYTES)
            self._fonts[address] = bool(_BOLD.search(name.value))
        return self._fonts[address]

    def _with_hidden(self, text: str, places: Sequence[int]) -> str:
        """The line with marks around what of it nobody sees."""
        written: list[str] = []
        for seen, run in groupby(zip(text, places, strict=True), key=lambda pair: self._look(pair[1])):
            characters, indexes = zip(*run, strict=True)
            piece = "".join(characters)
            hidden = seen == "unseen" or (seen == "suspect" and self._shows_nothing(indexes))
            written.append(f"{HIDDEN_START}{piece}{HIDDEN_END}" if hidden and piece.strip() else piece)
        return "".join(written).replace(HIDDEN_END + HIDDEN_START, "")

    def _shows_nothing(self, places: Sequence[int]) -> bool:
        """Whether the page is blank where these characters stand."""
        boxes = [self._box(place) for place in places]
        shown = [box for box in boxes if box.right > box.left]
        return not shown or _is_blank(self._page, _middle(shown))


def _middle(boxes: Sequence[_Box]) -> _Box:
    """What holds the boxes, without the upper and the lower quarter: lines above and below may reach into those."""
    lower, upper = min(box.bottom for box in boxes), max(box.top for box in boxes)
    quarter = (upper - lower) / 4
    return _Box(min(box.left for box in boxes), lower + quarter, max(box.right for box in boxes), upper - quarter)


def _is_blank(page: Any, box: _Box) -> bool:
    """Whether all of a part of the page is painted in one grey. Only that part is painted, which takes 0.04 ms."""
    width, height = (round(length) for length in page.get_size())
    x, y = ctypes.c_int(), ctypes.c_int()
    corners: list[tuple[int, int]] = []
    for across, down in ((box.left, box.bottom), (box.right, box.top)):
        raw.FPDF_PageToDevice(page, 0, 0, width, height, 0, across, down, x, y)
        corners.append((min(max(x.value, 0), width), min(max(y.value, 0), height)))
    (left, right), (upper, lower) = (sorted(ends) for ends in zip(*corners, strict=True))
    if right - left < 1 or lower - upper < 1:
        return True
    bitmap = page.render(grayscale=True, crop=(left, height - lower, width - right, upper))
    rows = [
        bytes(bitmap.buffer[start : start + bitmap.width])
        for start in range(0, bitmap.stride * bitmap.height, bitmap.stride)
    ]
    bitmap.close()
    return max(map(max, rows)) - min(map(min, rows)) < _CONTRAST


def _places(text: str, count: int) -> Sequence[int] | None:
    """pdfium's index of each character: it counts UTF-16 units. None where the counts do not agree."""
    if count == len(text):
        return range(count)
    units = [0, *accumulate(2 if character > "\uffff" else 1 for character in text)]
    return units if units[-1] == count else None


def hidden_free(text: str) -> str:
    """The text without the marks around what nobody sees."""
    return text.replace(HIDDEN_START, "").replace(HIDDEN_END, "")
