"""Texts that stay as their author wrote them (plain, Markdown, Org, reStructuredText), JSON, and CSV."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptDocument, EmptyDocument, ParserLimit
from ingest.parse import parse
from tests.unit.parsing import outline, texts

MARKDOWN = """---
title: never shown
acl: [group:finance]
---
# Travel policy

Book *early*, see [the portal](https://example.com).

## Limits ##

- a seat
  in economy
- a room
  1. single

| City | Limit |
|------|-------|
| Rome | 120 |

```python
# not a heading
book("Rome")
```

> # Quoted, so no heading

Annex
-----

End.
"""


def test_markdown_keeps_the_source_and_knows_its_structure() -> None:
    document = parse(MARKDOWN.encode(), "text/markdown")
    assert document.text == MARKDOWN.partition("]\n---\n")[2]
    assert document.title == "Travel policy"
    assert outline(document) == [
        ("heading", 1, "Travel policy"),
        ("paragraph", 0, "Book *early*, see [the portal](https://example.com)."),
        ("heading", 2, "Limits"),
        ("list_item", 0, "- a seat\n  in economy"),
        ("list_item", 0, "- a room"),
        ("list_item", 0, "1. single"),
        ("table", 0, "| City | Limit |\n|------|-------|\n| Rome | 120 |"),
        ("code", 0, '```python\n# not a heading\nbook("Rome")\n```'),
        ("paragraph", 0, "> # Quoted, so no heading"),
        ("heading", 2, "Annex"),
        ("paragraph", 0, "End."),
    ]
    assert next(element.context for element in document.elements if element.kind == "table") == "| City | Limit |"
    assert {element.page for element in document.elements} == {None}


def test_markdown_between_two_rules_is_not_front_matter() -> None:
    document = parse(b"---\n\nA quiet start.\n\n---\n\nMore.\n", "text/markdown")
    assert "A quiet start." in texts(document)


def test_markdown_leaves_out_what_a_page_does_not_show() -> None:
    document = parse(b"Shown `<!-- x -->` <!-- x --> text\n\n<!-- two\nlines -->\n\n`<!-- code -->`\n", "text/markdown")
    assert texts(document) == ["Shown `<!-- x -->`  text", "`<!-- code -->`"]
    assert document.warnings == ("comments, scripts or styles were left out: a rendered page does not show them",)


def test_front_matter_alone_is_empty() -> None:
    with pytest.raises(EmptyDocument):
        parse(b"---\ntitle: x\n---\n", "text/markdown")


def test_plain_text_keeps_every_character() -> None:
    source = "  First line\nsecond line  \n\n\n\tThird\n"
    document = parse(source.replace("\n", "\r\n").encode(), "text/plain")
    assert document.text == source
    assert texts(document) == ["First line\nsecond line", "Third"]


@given(st.text(alphabet="ab .\n\t\u00e4", max_size=80).filter(str.strip))
def test_plain_text_is_its_own_canonical_text(source: str) -> None:
    document = parse(source.encode(), "text/plain")
    assert document.text == source
    assert "".join("".join(texts(document)).split()) == "".join(source.split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_encodings(encoding: str) -> None:
    source = "Die Straße führt über die Brücke. " * 20
    assert parse(source.encode(encoding), "text/plain").text == source


def test_a_guessed_encoding_is_said() -> None:
    document = parse("Größe".encode("cp1252"), "text/plain")
    assert document.text == "Größe"
    assert document.warnings == ("the encoding is not stated; read as cp1252",)


def test_org_and_rst_headings() -> None:
    org = parse(b"#+TITLE: Plan\n* Goals\nDo it.\n** Next\nSoon.\n", "text/org")
    assert (org.title, outline(org)[1:4]) == (
        "Plan",
        [("heading", 1, "Goals"), ("paragraph", 0, "Do it."), ("heading", 2, "Next")],
    )
    rst = parse(b"====\nPlan\n====\n\nGoals\n-----\n\nDo it.\n\nNext\n~~~~\n\nToo short\n---\n", "text/x-rst")
    assert [found for found in outline(rst) if found[0] == "heading"] == [
        ("heading", 1, "Plan"),
        ("heading", 2, "Goals"),
        ("heading", 3, "Next"),
    ]


def test_json_has_a_path_before_each_value() -> None:
    source = b'{"name": "Ana", "limits": {"room": 120.50, "seats": ["economy", null]}, "id": 12345678901234567890}'
    document = parse(source, "application/json")
    assert texts(document) == [
        "name: Ana",
        "limits.room: 120.50\nlimits.seats[0]: economy\nlimits.seats[1]: null",
        "id: 12345678901234567890",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="abc", min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=4),
)


@given(JSON)
def test_every_json_leaf_is_on_a_line(value: Any) -> None:
    def leaves(node: Any) -> int:
        members = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        return sum(map(leaves, members)) if members else 1

    if value in ({}, []):
        return
    document = parse(json.dumps(value).encode(), "application/json")
    assert sum(text.count("\n") + 1 for text in texts(document)) == leaves(value)


def test_json_that_is_not_valid_is_corrupt() -> None:
    for content in (b'{"a": 1,}', b'{"a": ', b"nonsense"):
        with pytest.raises(CorruptDocument, match="not valid JSON"):
            parse(content, "application/json")


def test_json_without_end_is_a_limit() -> None:
    with pytest.raises(ParserLimit, match="nested too deeply"):
        parse(b"[" * 100_000 + b"]" * 100_000, "application/json")


def test_json_lines_are_records() -> None:
    document = parse(b'{"a": 1}\n\n{"b": {"c": 2}}\n', "application/x-ndjson")
    assert texts(document) == ["[0].a: 1", "[1].b.c: 2"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters(delimiter: str) -> None:
    rows = [["City", "Limit, net", "Note"], ["Rome", "120", 'a "b"'], ["Oslo", "180", "two\nlines"]]
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    document = parse("\r\n".join(delimiter.join(row) for row in quoted).encode(), "text/csv")
    assert texts(document) == ['City | Limit, net | Note\nRome | 120 | a "b"\nOslo | 180 | two lines']
    assert document.elements[0].context == "City | Limit, net | Note"


def test_csv_captions_stand_above_the_table() -> None:
    document = parse(b"Stanley Cups,,\nTeam,City,Cups\nLeafs,Toronto,13\n", "text/csv")
    assert outline(document) == [
        ("paragraph", 0, "Stanley Cups"),
        ("table", 0, "Team | City | Cups\nLeafs | Toronto | 13"),
    ]


def test_csv_in_latin_1_with_semicolons_as_excel_writes_it() -> None:
    document = parse("sep=;\r\nStraße;Preis\r\nHöhe;1,50\r\n".encode("cp1252"), "text/csv")
    assert texts(document) == ["Straße | Preis\nHöhe | 1,50"]
