"""Lines of a PDF as paragraphs and headings, told by gaps, sizes, weight and numbering; parted words mended."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ingest.parsers.canonical import Piece
from ingest.parsers.pdf_lines import Line, hidden_free

# pdfium joins a line that ends in a hyphen to the next and marks the place.
_PARTED = re.compile("([^\\W\\d_]+)\ufffe([^\\W\\d_]+)")
_COMPOUND = re.compile(r"[^\W\d_]+-[^\W\d_]+")
# Against the lines that most of the text is set in. A paragraph's gap is 1.5 lines and more in print; a heading is set
# at least a point larger than 8 to 12 point text.
_PARAGRAPH_PITCH = 1.35
_OTHER_SIZE = 0.12
_HEADING_SIZE = 1.12
_HEADING_LENGTH = 200  # code points
_HEADING_LINES = 3
_HEADING_SHARE = 0.3  # of the characters; where more of the text is large, or bold, that does not tell headings
_BOLD_LENGTH = 120  # code points of a heading that only its weight or its number tells
_WORDY = 0.6  # of such a heading, letters; and of the line below it, or it is the head of a table
_SECTION = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+[^\W\d_]")
_SUBSECTION = re.compile(r"\d{1,2}(?:\.\d{1,2})+\.?\s+[^\W\d_].*[^\W_\d]")


@dataclass(frozen=True, slots=True)
class _Style:
    """What tells the headings of one document."""

    levels: dict[float, int]  # of each line height above the text's own
    bold: bool  # whether weight tells a heading

    @property
    def below(self) -> int:
        """The level under those that size tells."""
        return max(self.levels.values(), default=0) + 1


def pieces(lines: Sequence[Line]) -> Iterator[Piece]:
    """Paragraphs and headings in the order of the lines, none over two pages."""
    lines = _mended(lines)
    style = _style(lines)
    for page, on_page in groupby(lines, key=lambda line: line.page):
        blocks = list(_blocks(list(on_page)))
        for block, following in zip(blocks, [*blocks[1:], []], strict=True):
            level = _level(block, following, style)
            text = "\n".join(line.text for line in block)
            yield Piece("heading" if level else "paragraph", " ".join(text.split()) if level else text, level, page)


def _mended(lines: Sequence[Line]) -> list[Line]:
    """The lines with parted words whole; a hyphen stays in a compound that the text also writes unparted, before a
    capital (Jean-Pierre) and beside digits (COVID-19).
    """
    if not any("\ufffe" in line.text for line in lines):
        return list(lines)
    compounds = {compound.lower() for line in lines for compound in _COMPOUND.findall(line.text)}

    def mend(parted: re.Match[str]) -> str:
        compound = f"{parted.group(1)}-{parted.group(2)}"
        whole = parted.group(2)[0].islower() and compound.lower() not in compounds
        return parted.group(1) + parted.group(2) if whole else compound

    return [
        line._replace(text=_PARTED.sub(mend, line.text).replace("\ufffe", "-")) if "\ufffe" in line.text else line
        for line in lines
    ]


def _level(block: Sequence[Line], following: Sequence[Line], style: _Style) -> int:
    """The block's level as a heading; 0 when it is text."""
    if len(block) > _HEADING_LINES:
        return 0
    text = hidden_free(" ".join(line.text for line in block))
    if len(text) > _HEADING_LENGTH:
        return 0
    if level := style.levels.get(block[0].height, 0):
        return level if _is_wordy(text, 1 / 3) else 0
    section = _SECTION.match(text)
    depth = section.group(1).count(".") if section else 0
    numbered = len(block) == 1 and _SUBSECTION.fullmatch(text)
    heavy = style.bold and all(line.bold for line in block) and not text.endswith((".", ",", ";"))
    if (numbered or heavy) and len(text) <= _BOLD_LENGTH and _heads_text(block, following):
        return min(style.below + depth, 6)
    return 0


def _heads_text(block: Sequence[Line], following: Sequence[Line]) -> bool:
    """Whether the lines are words, one below the other, over words: the head of a table is over numbers."""
    lines = [*block, *following[:1]]
    rows = all(above.bottom - below.top > 0.6 * above.height for above, below in zip(block, block[1:], strict=False))
    return rows and bool(following) and all(_is_wordy(hidden_free(line.text), _WORDY) for line in lines)


def _blocks(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The lines of a page, parted where the size changes, the gap is wide, or the text goes back up to a new column."""
    pitches = [above.bottom - below.top for above, below in zip(lines, lines[1:], strict=False)]
    usual = statistics.median([pitch for pitch in pitches if pitch > 1] or [0.0])
    block: list[Line] = []
    for line, pitch in zip(lines, [0.0, *pitches], strict=True):
        if block and _parts(block[-1], line, pitch, usual):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _parts(above: Line, below: Line, pitch: float, usual: float) -> bool:
    if not above.height or not below.height:
        return False
    larger, smaller = max(above.height, below.height), min(above.height, below.height)
    if abs(pitch) < 0.6 * larger:
        return False  # the same row: a raised mark, or the next cell
    if larger - smaller > _OTHER_SIZE * larger or pitch < -smaller or above.bold != below.bold:
        return True
    least = 1.0 if larger > 1.3 * usual else 0.8  # a large title on several lines is one
    return pitch > _PARAGRAPH_PITCH * max(min(usual, 1.5 * larger), least * larger)


def _style(lines: Sequence[Line]) -> _Style:
    weights: Counter[float] = Counter()
    bold = 0
    for line in lines:
        weights[line.height] += len(line.text)
        bold += len(line.text) if line.bold else 0
    return _Style(_heading_levels(weights), 0 < bold <= _HEADING_SHARE * weights.total())


def _heading_levels(weights: Counter[float]) -> dict[float, int]:
    """The level of each line height that is larger than the text's own; empty where size does not tell headings.

    `weights` is the number of characters of each height.
    """
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


def _is_wordy(text: str, share: float) -> bool:
    return sum(character.isalpha() for character in text) >= max(2, len(text) * share)
