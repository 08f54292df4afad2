"""Access labels: what is one, and what is refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidLabel
from core.labels import check_label, check_subject, fold, make_labels, name_label
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


# Canonical equivalence and its composed form (NFC), from the Unicode standard: UAX #15, figures 3 to 5, and the
# composition exclusions, whose NFC is decomposed.
SPELLINGS = {
    "e\u0301": "\u00e9",  # é
    "E\u0301": "\u00c9",  # É
    "\u212b": "\u00c5",  # the Ångström sign is Å
    "A\u030a": "\u00c5",
    "\u2126": "\u03a9",  # the ohm sign is Ω
    "\u212a": "K",  # the kelvin sign is K
    "s\u0307\u0323": "\u1e69",  # ṩ, its marks in either order
    "s\u0323\u0307": "\u1e69",
    "\u1e9b\u0323": "\u1e9b\u0323",  # compatibility is another thing: the long s stays
    "\ufb01": "\ufb01",  # as does the ligature
    "\u1100\u1161\u11a8": "\uac01",  # Hangul by its arithmetic: 각
    "\u0958": "\u0915\u093c",  # excluded from composition
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_equivalent_spellings_are_one_label(spelling: str) -> None:
    assert check_label(f"user:{spelling}") == f"user:{SPELLINGS[spelling]}"
    made = make_labels([f"user:{spelling}", f"user:{SPELLINGS[spelling]}"], [f"group:{spelling}"])
    assert (made.allow, made.deny) == ((f"user:{SPELLINGS[spelling]}",), (f"group:{SPELLINGS[spelling]}",))


@given(st.text(max_size=20))
def test_a_label_is_one_in_any_spelling_and_given_back_in_nfc(value: str) -> None:
    def checked(spelling: str) -> str | None:
        try:
            return check_label(f"user:{spelling}")
        except InvalidLabel:
            return None

    found = {checked(unicodedata.normalize(form, value)) for form in ("NFC", "NFD")} | {checked(value)}
    assert len(found) == 1
    assert found <= {None, f"user:{unicodedata.normalize('NFC', value)}"}


def test_case_counts() -> None:
    assert make_labels(["user:Ana", "user:ana"]).allow == ("user:Ana", "user:ana")


def test_who_asks_is_a_user_or_a_service() -> None:
    assert check_subject("user:zoe\u0308") == "user:zo\u00eb"
    for other in ("group:finance", "public", "idp:x", "ana"):
        with pytest.raises(InvalidLabel):
            check_subject(other)


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
