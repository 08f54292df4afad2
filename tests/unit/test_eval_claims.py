"""Claims, and what of them can be looked up: values by hand."""

from decimal import Decimal

import pytest

from eval.claims import claims_of
from eval.facts import facts_of, missing, readings
from eval.sentences import windows


def told(answer: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(claim.text, claim.markers) for claim in claims_of(answer)]


def test_a_marker_belongs_to_the_sentence_that_it_ends() -> None:
    assert told("Leave is long [1]. It starts in May.[2] It ends in June. [3][1] Nobody says why.") == [
        ("Leave is long.", (1,)), ("It starts in May.", (2,)), ("It ends in June.", (3, 1)), ("Nobody says why.", ()),
    ]  # fmt: skip


def test_lists_and_ranges_of_markers() -> None:
    assert told("This is a claim [2, 4-6; 4].") == [("This is a claim.", (2, 4, 5, 6))]
    assert told("This is a claim [6-4].") == [("This is a claim.", (6, 4))]
    assert told("It says [sic] what it is [2024].") == [("It says [sic] what it is [2024].", ())]


def test_a_full_stop_that_ends_no_sentence() -> None:
    assert told("Dr. A. Smith of the U.S. office, e.g. in Boston, paid 3.5 dollars.") == [
        ("Dr. A. Smith of the U.S. office, e.g. in Boston, paid 3.5 dollars.", ())
    ]
    assert [text for text, _ in told("It is “done.” So are we two.")] == ["It is “done.”", "So are we two."]


def test_what_asserts_nothing_is_no_claim() -> None:
    assert told("") == told("\n \n---\n") == []
    assert told("# The heading is long\nWhat is the leave? Of course. As follows:\n") == []
    assert told("The list is this:\n- one thing is so [1]\n2) another is not\n* 26") == [
        ("one thing is so", (1,)), ("another is not", ()), ("26", ()),
    ]  # fmt: skip


def test_references_are_no_claims() -> None:
    answer = "It is so and so [1].\n\n**Sources:**\n[1] Handbook, page 3\n- [2] The other handbook\nAnd it is more."
    assert told(answer) == [("It is so and so.", (1,)), ("And it is more.", ())]


def test_sentences_without_spaces_between_them() -> None:
    assert told("会议在五月。[1] 他说是。") == [("会议在五月。", (1,)), ("他说是。", ())]


@pytest.mark.parametrize(
    ("numeral", "values"),
    [
        ("1234", {"1234"}), ("1,234", {"1234", "1.234"}), ("1.234", {"1234", "1.234"}), ("1,234,567", {"1234567"}),
        ("1.234,50", {"1234.5"}), ("1,234.50", {"1234.5"}), ("3,5", {"3.5"}), ("0.5", {"0.5"}),
        ("12,34,567", {"1234567"}),
        ("1 234 567", {"1234567"}), ("1\u202f234,5", {"1234.5"}), ("1'234", {"1234"}),
    ],
)  # fmt: skip
def test_a_numeral_is_read_in_every_way_that_its_marks_allow(numeral: str, values: set[str]) -> None:
    assert readings(numeral) == frozenset(map(Decimal, values))


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("26 weeks", "twenty-six weeks"), ("nine million dollars", "$9,000,000"), ("$9m", "USD 9 million"),
        ("12 %", "12 percent"), ("12%", "up 12 per cent"), ("€1.2 billion", "1,200 million euros"),
        ("1234 people", "1.234 people"), ("a 5-year plan", "five years"), ("5km", "5 kilometres"), ("5 m", "5 metres"),
        ("9:30 a.m.", "at 09:30"), ("9:30 pm", "at 21:30"), ("a loss of 3.1%", "(3.1%)"), ("in 2025", "1 May 2025"),
        ("$82,959 million", "Net sales (in millions) 82,959"), ("1 October 2025", "October 1st, 2025"),
        ("2025-10-01", "on 1.10.2025"), ("1. Oktober 2025", "10/1/2025"), ("October 2025", "2 Oct. 2025"),
        ("he said “Well  into ‘27’.”", 'funded "well into \'27\'"'), ("“funded … 2027”", "funded well into 2027"),
        ('"[T]he vault," it says', "The vault"), ("„so – oder so“", "so - oder so"), ("«ja»", "JA"),
        ("10-Q and 3rd", "nothing"), ("one of the two", "nothing"),
    ],
)  # fmt: skip
def test_what_is_said_in_another_way_stands_there(claim: str, source: str) -> None:
    assert missing(facts_of(claim), source) == ()


@pytest.mark.parametrize(
    ("claim", "source", "lost"),
    [
        ("26 weeks", "26 days", ("26 weeks",)), ("12%", "12 people", ("12%",)), ("12", "12%", ("12",)),
        ("9.2 million", "9,213,456", ("9.2 million",)), ("9 million", "9 people", ("9 million",)),
        ("$5", "€5", ("$5",)), ("1 October 2025", "October 2025", ("1 october 2025",)),
        ("2 May 2025", "1 May 2025", ("2 may 2025",)), ("1.2.2025", "January 2, 2025", ("1.2.2025",)),
        ("570", "9:30", ("570",)), ("“the vault is shut”", "the vault is open", ("the vault is shut",)),
        ("“2027 … funded”", "funded well into 2027", ("2027 … funded",)), ("26 and 27", "26", ("27",)),
        ("7", "", ("7",)),
    ],
)  # fmt: skip
def test_what_is_not_said_is_missing(claim: str, source: str, lost: tuple[str, ...]) -> None:
    assert missing(facts_of(claim), source) == lost


def test_windows_are_sentences_and_the_rows_of_tables() -> None:
    row = "name " * 15
    table = "\n".join([row.strip()] * 3)
    assert windows("One is\nso. Two is not.\n\nThree") == ["One is so.", "Two is not.", "Three"]
    assert windows(table) == [row.strip()] * 3
    assert windows(" \n\n ") == []
