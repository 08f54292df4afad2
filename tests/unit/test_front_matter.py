"""Two markdown files whose bytes after the front matter are the same are read as the same text: the parser says so."""

import codecs
from itertools import product

import pytest

from core.errors import CitadelError
from ingest.parsers.markdown import parse_markdown
from ingest.sniff import sniff
from ingest.sources.front_matter import read_hash

FRONTS = [b"", b"---\ntitle: a\n---\n", b"---\r\ntitle: b\r\n---\r\n", b"+++\ntitle = 'c'\n+++\n", b"---\n---\n",
          b"+++\n[labels]\nallow = []\n+++\n", b"---\n# nothing\n---", b"---\nt: \xe2\x80\x8bx\n---\n",
          b"---\nt: \xff\n---\n",
          b"---\rt: 1\r---\r", codecs.BOM_UTF8 + b"---\nt: 1\n---\n", b"---\n[a](b)\n---\n",
          b"---\nprose\n---\n"]  # fmt: skip
BODIES = [b"the text", b"# A\n\ntext\n", b"\r\ntext\r\n", b"---\ntitle: inner\n---\ntext",
          b"<html><p>text</p></html>",
          b"caf\xc3\xa9", b"caf\xe9 au lait", b"text \xe2\x80\x8b hidden", b"{\\rtf1 text}", b"t\0e\0x\0t\0", b"",
          codecs.BOM_UTF8 + b"text", b"From: a@b.example\nTo: c@d.example\nDate: now\nSubject: x\n\ntext",
          b"%PDF-1.4 no", b"\xcc\x81accent", b"{\"a\": 1}"]  # fmt: skip


def read(content: bytes) -> object:
    """What indexing would make of it."""
    try:
        kind = sniff(content, "a.md")
        return (kind, parse_markdown(content)) if kind == "text/markdown" else (kind, content)
    except CitadelError as error:
        return type(error)


def test_equal_hashes_are_equal_texts() -> None:
    by_hash: dict[str | None, list[object]] = {}
    for front, body in product(FRONTS, BODIES):
        by_hash.setdefault(read_hash("a.md", front + body), []).append(read(front + body))
    assert all(each == texts[0] for texts in by_hash.values() for each in texts)
    assert max(len(texts) for texts in by_hash.values()) >= 5  # and some are equal


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a"])
def test_other_files_go_by_all_their_bytes(name: str) -> None:
    assert read_hash(name, b"---\ntitle: a\n---\ntext") is None
