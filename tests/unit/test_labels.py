"""Access labels: what is one, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidLabel
from core.labels import check_label, make_labels
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
