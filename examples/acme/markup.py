"""The light markup of `content/`: front matter, then headings, paragraphs, lists, tables, page breaks and notes."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import yaml

PAGE_BREAK = "<!-- page -->"
Kind = Literal["heading", "paragraph", "list", "table", "page", "note"]
_ORDERED = re.compile(r"\d+\. ")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a page. `rows` holds a table's cells (the first row is its header); `lines` a list's items."""

    kind: Kind
    text: str = ""
    level: int = 0  # headings: 1 is the topmost
    ordered: bool = False  # lists: numbered
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A content file: its front matter, its body as written, and the blocks of that body."""

    meta: dict[str, str]
    body: str
    blocks: tuple[Block, ...]

    @property
    def date(self) -> datetime:
        """The document's date, which its metadata bear so that a rebuild gives the same bytes."""
        return datetime.fromisoformat(self.meta["date"])


def read_sheet(path: Path) -> Sheet:
    """The content file at `path`. Raises ValueError when it does not begin with front matter."""
    parts = path.read_text(encoding="utf-8").split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        raise ValueError(f"{path}: begin the file with front matter between two lines of ---")
    # BaseLoader leaves every value a string: a date stays as it was written
    meta = yaml.load(parts[1], Loader=yaml.BaseLoader)
    body = parts[2].strip() + "\n"
    return Sheet(meta=meta, body=body, blocks=tuple(read_block(part) for part in re.split(r"\n{2,}", body.strip())))


def read_block(part: str) -> Block:
    """The block that a stretch of lines between empty lines stands for."""
    lines = part.split("\n")
    first = lines[0]
    if first == PAGE_BREAK:
        return Block("page")
    if first.startswith("#"):
        marks, text = first.split(" ", 1)
        return Block("heading", plain(text), level=len(marks))
    if first.startswith("|"):
        return Block("table", rows=tuple(read_row(line) for line in lines if not line.startswith("|---")))
    if first.startswith("- "):
        return Block("list", lines=tuple(plain(line[2:]) for line in lines))
    if _ORDERED.match(first):
        return Block("list", ordered=True, lines=read_numbered(lines))
    if first.startswith("> "):
        return Block("note", plain(" ".join(line[2:] for line in lines)))
    return Block("paragraph", plain(" ".join(lines)))


def read_numbered(lines: list[str]) -> tuple[str, ...]:
    """The items of a numbered list without their numbers; an indented line goes on with the item above it."""
    joined = "\n".join(lines).replace("\n   ", " ")
    return tuple(plain(_ORDERED.sub("", line, count=1)) for line in joined.split("\n"))


def read_row(line: str) -> tuple[str, ...]:
    """The cells of a table row such as `| a | b |`."""
    return tuple(plain(cell.strip()) for cell in line.strip()[1:-1].split("|"))


def plain(text: str) -> str:
    """The text without code marks, which office files have no use for."""
    return text.replace("`", "")
