"""Text to terms, worked by hand."""

import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from retrieval.analyze import (
    BY_CODE,
    FUNCTION_WORDS,
    LANGUAGES,
    MAX_QUERY_WORDS,
    PREFIX_WEIGHT,
    index_terms,
    language_of,
    query_terms,
    stems,
    terms,
)


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


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The travel policy of the company is what you sign", "english"),
        ("Die Reisekosten werden nicht erstattet und sind zu belegen", "german"),
        ("Les frais de voyage sont remboursés pour les employés", "french"),
        ("Los gastos de viaje por una empresa son más", "spanish"),
        ("Qual è il costo della trasferta alla sede", "italian"),
        ("As despesas são pagas pela empresa também", "portuguese"),
        ("De kosten van het reizen worden niet betaald", "dutch"),
        ("Vad är reglerna för resor och inte något annat", "swedish"),
        ("Расходы на поездки не из бюджета", "russian"),
        ("net sales 82,959 10-K ERR-4012", None),
        ("int main(void) { return as_is; }", None),
        ("", None),
        ("the", None),  # one word is no evidence
    ],
)
def test_the_language_is_told_by_function_words(text: str, language: str | None) -> None:
    assert language_of(terms(text)) == language


def test_no_function_word_is_of_half_of_the_languages() -> None:
    every = [word for words in FUNCTION_WORDS.values() for word in words.split()]
    assert max(every.count(word) for word in every) <= 3


def test_stems_are_snowballs() -> None:
    """From the algorithms' own pages, https://snowballstem.org/algorithms/english/stemmer.html and german."""
    assert stems(["consigning", "consistency", "consolations", "knightly"], "english") == [
        "consign", "consist", "consol", "knight"]  # fmt: skip
    assert stems(["aufeinanderfolgenden", "kategorien"], "german") == ["aufeinanderfolg", "kategori"]


def test_what_is_no_word_of_letters_is_not_stemmed() -> None:
    assert stems(["err-4012", "10-ks", "v3s", "don't"], "english") == ["err-4012", "10-ks", "v3s", "don't"]


def test_a_prefix_counts_more_and_is_stemmed_as_its_text() -> None:
    found = index_terms("Travel policies", "The flights of the staff are booked by travellers")
    assert found.count("polici") == PREFIX_WEIGHT and found.count("flight") == 1
    assert found.count("travel") == PREFIX_WEIGHT + 1
    german = index_terms("Reisekosten", "Die Kosten werden nicht erstattet und sind zu belegen")
    assert "reisekost" in german and "reisekosten" not in german


def test_a_text_that_tells_no_language_is_stemmed_as_its_document() -> None:
    assert index_terms("", "Erstattungen 2024", "de") == ["erstatt", "2024"]
    assert (
        index_terms("", "Erstattungen 2024") == index_terms("", "Erstattungen 2024", "da") == ["erstattungen", "2024"]
    )
    assert "flight" in index_terms("", "The flights of the staff are booked", "de")  # its own words tell


def test_the_codes_of_languages_are_the_stemmers() -> None:
    """Snowball knows its languages by either name."""
    words = [word for words in FUNCTION_WORDS.values() for word in words.split()]
    assert set(BY_CODE.values()) == set(LANGUAGES)
    for code, language in BY_CODE.items():
        assert Stemmer.Stemmer(code).stemWords(words) == Stemmer.Stemmer(language).stemWords(words)


def test_a_question_that_tells_no_language_is_asked_in_each() -> None:
    assert {"erstatt", "erstattung"} <= query_terms("Erstattung").keys()
    assert query_terms("What is the Erstattung of travels").keys() == {
        "what",
        "is",
        "the",
        "erstattung",
        "of",
        "travel",
    }
    assert len(LANGUAGES) == 9


def test_what_is_asked_twice_counts_twice() -> None:
    assert query_terms("the lamp of the lamps") == {"the": 2, "lamp": 2, "of": 1}


def test_no_more_words_are_asked_than_a_question_has() -> None:
    long = " ".join(f"word{n}x" for n in range(1000))
    assert list(query_terms(long)) == [f"word{n}x" for n in range(MAX_QUERY_WORDS)]


@given(st.text())
def test_a_text_is_found_by_itself(text: str) -> None:
    asked = query_terms(text)
    words = dict.fromkeys(terms(text))
    if len(words) <= MAX_QUERY_WORDS:
        assert set(index_terms("", text)) <= asked.keys()
