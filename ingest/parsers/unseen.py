"""Text that a page or a Word file holds and does not show: marked, so that passages with it say so.

Told by what stands at the text itself, not by style sheets. What `display: none` hides is left out by
`ingest/parsers/markup.py`; what only looks hidden may be seen after all, over a picture or a dark cell, and is kept.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from ingest.parsers.canonical import hidden

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_NEAR = 24  # of 255, each colour: text that is as near to its ground is not seen
_TINY_POINTS = 2.0
_WHITE = (255, 255, 255)
_NAMED = {"white": _WHITE, "black": (0, 0, 0), "snow": (255, 250, 250), "ivory": (255, 255, 240)}
_HEX = re.compile(r"#?([0-9a-f]{6}|[0-9a-f]{3})\b")
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})(?:[\s,/]+([\d.]+%?))?\s*\)")
_SIZE = re.compile(r"^([\d.]+)(px|pt|em|rem|%)$")
_POINTS = {"px": 0.75, "pt": 1.0, "em": 12.0, "rem": 12.0, "%": 0.12}
_AWAY = re.compile(r"(?:^|;)\s*(?:left|top|right|text-indent|margin-left)\s*:\s*-\d{4,}(?:px|pt|em)", re.IGNORECASE)

_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Paint:
    """How the text of an HTML element is painted; None is unknown."""

    ink: _Colour | None = (0, 0, 0)
    ground: _Colour | None = _WHITE
    gone: bool = False  # too small, clear, or off the page

    @property
    def unseen(self) -> bool:
        return self.gone or _alike(self.ink, self.ground)


def mark_page(root: Any) -> None:
    """Mark in an HTML tree the texts whose own styles and attributes hide them."""
    if not root.xpath("boolean(//@style | //@color | //@bgcolor | //@background | //@text)"):
        return
    paints = [_Paint()]
    for event, node in etree.iterwalk(root, events=("start", "end")):
        if event == "end":
            paints.pop()
            if paints[-1].unseen and node.tail:
                node.tail = hidden(node.tail)
            continue
        paints.append(_painted(node, paints[-1]))
        if paints[-1].unseen and node.text:
            node.text = hidden(node.text)


def _painted(node: Any, above: _Paint) -> _Paint:
    """How an element is painted under one that is painted as `above`."""
    style = dict(_declared(node.get("style", "")))
    ink = style.get("color") or node.get("color") or node.get("text")
    ground = style.get("background-color") or style.get("background") or node.get("bgcolor")
    paint = above
    if ink:
        paint = replace(paint, ink=_colour(ink))
    if "background-image" in style or node.get("background"):
        paint = replace(paint, ground=None)
    elif ground and ground != "transparent":
        paint = replace(paint, ground=_colour(ground))
    size = _SIZE.match(style.get("font-size", ""))
    if size:
        paint = replace(paint, gone=float(size[1].strip(".") or 0) * _POINTS[size[2]] < _TINY_POINTS)
    if style.get("opacity") in ("0", "0.0", "0%") or ink == "transparent" or _AWAY.search(node.get("style", "")):
        paint = replace(paint, gone=True)
    return paint


def _declared(style: str) -> list[tuple[str, str]]:
    pairs = (declaration.partition(":") for declaration in style.lower().split(";"))
    return [(name.strip(), value.replace("!important", "").strip()) for name, _, value in pairs]


def _colour(text: str) -> _Colour | None:
    text = text.strip().lower()
    if text in _NAMED:
        return _NAMED[text]
    if found := _RGB.search(text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := _HEX.search(text):
        digits = found[1] if len(found[1]) == 6 else "".join(digit * 2 for digit in found[1])
        return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    return None


def _alike(ink: _Colour | None, ground: _Colour | None) -> bool:
    if ink is None or ground is None:
        return False
    return all(abs(one - other) < _NEAR for one, other in zip(ink, ground, strict=True))


def mark_word(root: Any) -> None:
    """Mark in a Word document's tree the runs that are hidden, tiny, or white on nothing darker."""
    for settings in root.iter(f"{_W}rPr"):
        run = settings.getparent()
        if run.tag == f"{_W}r" and _run_unseen(run, settings):
            for text in run.iter(f"{_W}t"):
                text.text = hidden(text.text or "")


def _run_unseen(run: Any, settings: Any) -> bool:
    vanish = settings.find(f"{_W}vanish")
    if vanish is not None and vanish.get(f"{_W}val") not in ("0", "false", "off"):
        return True
    size = _value(settings, "sz")
    if size.isdecimal() and int(size) / 2 < _TINY_POINTS:  # half points
        return True
    return _alike(_colour(_value(settings, "color")), _WHITE) and not _shaded(run)


def _shaded(run: Any) -> bool:
    """Whether something paints the ground behind a run: itself, its paragraph, cell or table, or a style that may."""
    above = [run, *run.iterancestors(f"{_W}p", f"{_W}tc", f"{_W}tbl", f"{_W}txbxContent")]
    return any(
        node.tag == f"{_W}txbxContent"
        or any(settings.find(f"{_W}{name}") is not None for name in ("shd", "highlight", "tblStyle", "pStyle"))
        for node in above
        for settings in (node, *(child for child in node if str(child.tag).endswith("Pr")))
    )


def _value(settings: Any, name: str) -> str:
    found = settings.find(f"{_W}{name}")
    return "" if found is None else found.get(f"{_W}val", "")
