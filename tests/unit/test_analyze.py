"""Text to terms, worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.analyze import terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t — … !?", []),
        ("Flights are booked", ["flights", "are", "booked"]),
        ("again and again", ["again", "and", "again"]),
        ("ERR-4012", ["err-4012", "err", "4012"]),  # an identifier counts whole and in parts
        ("Form 10-K.", ["form", "10-k", "10", "k"]),
        ("snake_case and v3.4.1", ["snake_case", "snake", "case", "and", "v3.4.1", "v3", "4", "1"]),
        ("a/b", ["a/b", "a", "b"]),
        ("don't", ["don't", "don", "t"]),
        ("end.", ["end"]),
        ("-x- --", ["x"]),
        ("Größe ÉTÉ", ["größe", "été"]),
        ("ﬁle Ｎｏ．７ x²", ["file", "no.7", "no", "7", "x2"]),  # NFKC: ligatures, full width, superscripts
        ("e\u0301te\u0301", ["été"]),  # composed as well
        ("Ω ohm", ["ω", "ohm"]),  # the ohm sign is an omega
        ("ключ ИЗМЕРЕНИЕ", ["ключ", "измерение"]),
        ("x\u00a0y\u2003z", ["x", "y", "z"]),
        ("😀 key 🗝", ["key"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text())
def test_any_text_has_terms_without_space_or_capitals(text: str) -> None:
    for term in terms(text):
        assert term and term == term.lower() and not any(c.isspace() for c in term)


@given(st.text(), st.text())
def test_lines_are_separate(one: str, two: str) -> None:
    assert terms(f"{one}\n\n{two}") == terms(one) + terms(two)


@given(st.text(alphabet="abcAZ 019-._/'", max_size=60))
def test_what_is_asked_and_what_is_stored_come_out_alike(text: str) -> None:
    assert terms(text) == terms(text.upper()) == terms(f"  {text}  ")
