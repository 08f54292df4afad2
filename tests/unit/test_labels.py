"""Access labels: what is one, and what is refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidLabel
from core.labels import check_label, fold, make_labels, name_label
from core.records import Labels

GOOD = (
    *("public", "user:ana@acme.example", "group:finance", "service:key-1", "site-2_x:42", "group:ä:ö/ü"),
    "user:" + "x" * 200,
)
BAD = (
    *(
        "",
        "ana",
        "Public",
        "PUBLIC",
        "public ",
        " public",
        "public:",
        "group:",
        ":finance",
        "Group:finance",
        "1group:x",
    ),
    *("group :x", "group: x", "group:a b", "group:a\tb", "group:a\nb", "group:a\n", "group:a,b", "group:a\0"),
    *("group:\x7f", "group:a\u00a0b", "group:a\u2003b", "user:" + "x" * 201, "n" * 33 + ":x", "*", "user:*\n"),
)


@pytest.mark.parametrize("label", GOOD)
def test_a_label(label: str) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize("wrong", BAD)
def test_not_a_label(wrong: str) -> None:
    with pytest.raises(InvalidLabel):
        check_label(wrong)
    with pytest.raises(InvalidLabel):
        make_labels([wrong])
    with pytest.raises(InvalidLabel):
        make_labels(deny=[wrong])


def test_a_wildcard_is_a_value_like_any_other() -> None:
    assert check_label("group:*") == "group:*"  # it grants nothing but itself: labels are compared, never matched


@given(st.lists(st.sampled_from(("public", "group:a", "group:b", "user:c")), max_size=8))
def test_order_and_repeats_do_not_matter(allow: list[str]) -> None:
    assert make_labels(allow, allow) == make_labels(reversed(allow), set(allow))
    assert make_labels(allow).allow == tuple(sorted(set(allow)))


def test_no_labels_at_all_allow_nobody() -> None:
    assert make_labels() == Labels(allow=(), deny=(), classification="internal")


# --- names that a directory gives ---------------------------------------------------------------------------------

NAMES = {
    "finance": "group:finance",
    "Sales Team": "group:Sales%20Team",
    "100%": "group:100%25",
    "a,b": "group:a%2cb",
    "a\tb": "group:a%09b",
    "a\u200bb": "group:a%e2%80%8bb",
    "Zoe\u0308": "group:Zoë",
    "\ud800": "group:%ed%a0%80",
    "x" * 200: "group:" + "x" * 200,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_becomes_a_label(name: str) -> None:
    assert name_label("group:", name) == NAMES[name]


@pytest.mark.parametrize("name", ["", "x" * 201, " " * 67])
def test_a_name_that_no_label_holds_is_refused(name: str) -> None:
    with pytest.raises(InvalidLabel):
        name_label("group:", name)


@given(st.text(max_size=20), st.text(max_size=20))
def test_names_that_differ_differ_as_labels(one: str, other: str) -> None:
    def labelled(name: str) -> str | None:
        try:
            return name_label("group:", name)
        except InvalidLabel:
            return None

    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert labelled(one) is None or (labelled(one) == labelled(other)) == same


@given(st.text(max_size=20))
def test_a_folded_name_stays_folded_as_a_label(name: str) -> None:
    try:
        label = name_label("user:", fold(name))
    except InvalidLabel:
        return
    assert fold(label) == label and fold(fold(name)) == fold(name)
