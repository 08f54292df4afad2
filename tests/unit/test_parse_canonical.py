"""The canonical builder: whatever it is given, elements are spans of a text that Postgres and a reader can take."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import EmptyDocument
from core.records import ElementKind
from ingest.parsers.canonical import Piece, assemble, clean

ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=60)  # lone surrogates and controls too
AWKWARD = st.text(alphabet="ab \r\n\t\x00\x0b\u200b\u200d\u202e\u0301\u212b\ud800\ufeff\u0645\U000e0041", max_size=30)
KINDS: tuple[ElementKind, ...] = ("heading", "paragraph", "list_item", "table", "code")


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    kind = draw(st.sampled_from(KINDS))
    page = draw(st.none() | st.integers(1, 9))
    return Piece(kind, draw(ANY_TEXT | AWKWARD), level=int(kind == "heading"), page=page, context=draw(AWKWARD))


@given(st.lists(pieces(), max_size=12))
def test_elements_are_exact_spans_in_order(given_pieces: list[Piece]) -> None:
    kept = [piece for piece in given_pieces if clean(piece.text).text.strip()]
    if not kept:
        with pytest.raises(EmptyDocument):
            assemble(given_pieces, "text/plain")
        return
    document = assemble(given_pieces, "text/plain")
    assert [element.kind for element in document.elements] == [piece.kind for piece in kept]
    assert [element.page for element in document.elements] == [piece.page for piece in kept]
    gaps, position = [], 0
    for element, piece in zip(document.elements, kept, strict=True):
        assert document.text[element.start : element.end].strip() == clean(piece.text).text.strip()
        gaps.append(document.text[position : element.start])
        position = element.end
    assert position == len(document.text)
    assert gaps[0] == "" and set(gaps[1:]) <= {"\n", "\n\n"}


@given(st.lists(pieces(), min_size=1, max_size=12))
def test_the_text_can_be_stored_and_read(given_pieces: list[Piece]) -> None:
    try:
        document = assemble([*given_pieces, Piece("paragraph", "end")], "text/plain")
    except EmptyDocument:  # pragma: no cover
        pytest.fail("there is text")
    document.text.encode()  # no lone surrogate
    assert not set(document.text) & set("\x00\r\x0b\u200b\u202e\ufeff\U000e0041")
    assert unicodedata.is_normalized("NFC", document.text)


@given(ANY_TEXT | AWKWARD)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once.text) == type(once)(once.text)


def test_what_is_invisible_is_removed_and_reported() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    document = assemble([Piece("paragraph", f"pay\u200bment{hidden} \u202edue\u202c")], "text/plain")
    assert document.text == "payment due"
    assert document.warnings == ("7 invisible characters were removed",)  # 1 zero-width, 4 tags, 2 overrides


def test_joiners_stay_where_a_script_needs_them() -> None:
    persian, family = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f468\u200d\U0001f469"
    assert clean(persian).text == persian
    assert clean(family).text == family
    assert clean("pass\u200cword").text == "password"


def test_accents_are_composed_after_what_parted_them_is_gone() -> None:
    assert clean("e\u200b\u0301").text == "\u00e9"


def test_the_title_is_the_first_heading_of_the_topmost_level() -> None:
    made = [Piece("heading", "About", level=2), Piece("heading", "Travel\n policy", level=1), Piece("paragraph", "x")]
    assert assemble(made, "text/html").title == "Travel policy"
    assert assemble(made, "text/html", title="Given").title == "Given"
    assert assemble(made[2:], "text/html").title is None
