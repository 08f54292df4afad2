"""A policy applied to a parsed document: spans stay true, and what is masked is nowhere in what comes out."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid, SensitiveContent
from core.flags import Flag
from core.records import Element, ParsedDocument
from core.sensitive import KINDS, Policy, read_changes, read_policy
from ingest.recognise import recognise
from ingest.screen import screen

CARD, EMAIL, KEY = "4111 1111 1111 1111", "ana@acme.example", "AKIAIOSFODNN7EXAMPLE"
MASKS = {CARD: "[CARD]", EMAIL: "[EMAIL]", KEY: "[ACCESS_KEY]"}
MASK_ALL = read_policy("mask")


def document(*paragraphs: str, context: str = "", title: str | None = None) -> ParsedDocument:
    text, elements = "", []
    for paragraph in paragraphs:
        start = len(text) + 2 * bool(text)
        text += "\n\n" * bool(text) + paragraph
        elements.append(Element("paragraph", start, len(text), context=context))
    return ParsedDocument(text, tuple(elements), "text/plain", title)


def test_a_policy_is_read_from_its_setting() -> None:
    assert read_policy("") == dict.fromkeys(KINDS, "flag")
    assert read_policy("off, card=mask") == {**dict.fromkeys(KINDS, "off"), "card": "mask"}
    assert read_changes(["all=off", "email=flag"])["email"] == "flag"
    for wrong in ("card", "card=hide", "cards=mask"):
        with pytest.raises(Invalid, match="KIND=ACTION"):
            read_changes([wrong])


def test_flags_lie_on_what_was_found_and_nothing_else_changes() -> None:
    before = document(f"Pay with {CARD}.", f"Write to {EMAIL}.")
    after = screen(before, read_policy("flag"))
    assert after.text == before.text and after.elements == before.elements
    assert [(flag.kind, after.text[flag.start : flag.end]) for flag in after.flags] == [
        ("card", CARD),
        ("email", EMAIL),
    ]
    assert after.screening is not None and after.screening.found == {"card": 1, "email": 1}
    assert screen(before, read_policy("off")).flags == ()


WORDS = st.sampled_from([*MASKS, "words", "und so", "é𝄞"])
PIECES = st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=5)


@given(PIECES)
def test_spans_are_true_of_the_masked_text(paragraphs: list[list[str]]) -> None:
    """The masked document is the one that the same paragraphs make with masks written into them."""
    written = document(*(", ".join(pieces) for pieces in paragraphs))
    expected = document(*(", ".join(MASKS.get(piece, piece) for piece in pieces) for pieces in paragraphs))
    got = screen(written, MASK_ALL)
    assert (got.text, got.elements) == (expected.text, expected.elements)
    assert sorted(flag.start for flag in got.flags) == [place for place, c in enumerate(got.text) if c == "["]
    assert all(got.text[flag.start : flag.end] == f"[{flag.kind.upper()}]" for flag in got.flags)
    assert recognise(got.text, KINDS, "US") == []


def test_titles_and_contexts_are_masked_and_hidden_text_keeps_its_flag() -> None:
    before = document(f"a {CARD}", "hidden here", context=f"Owner: {EMAIL}", title=f"Of {EMAIL}")
    at = before.text.index("hidden")
    after = screen(replace(before, flags=(Flag("hidden_text", at, at + 6),)), MASK_ALL)
    assert after.title == "Of [EMAIL]" and {each.context for each in after.elements} == {"Owner: [EMAIL]"}
    hidden = next(flag for flag in after.flags if flag.kind == "hidden_text")
    assert after.text[hidden.start : hidden.end] == "hidden"
    told = json.dumps(asdict(after))
    assert CARD not in told and EMAIL not in told


def test_a_secret_over_several_elements_leaves_one_mask() -> None:
    block = ("-----BEGIN RSA PRIVATE KEY-----", "MIIEpAIBAAKC", "-----END RSA PRIVATE KEY-----")
    after = screen(document("before", *block, "after"), MASK_ALL)
    assert after.text == "before\n\n[PRIVATE_KEY]\n\nafter"
    assert [after.text[e.start : e.end] for e in after.elements] == ["before", "[PRIVATE_KEY]", "after"]


def test_where_two_kinds_overlap_the_stricter_action_covers_both() -> None:
    written = document(f"password={KEY}")
    for policy in ("flag,access_key=mask", "flag,password=mask"):
        assert KEY not in screen(written, read_policy(policy)).text
    with pytest.raises(SensitiveContent):
        screen(written, read_policy("mask,password=quarantine"))


def test_quarantine_tells_kinds_and_counts_and_quotes_nothing() -> None:
    policy: Policy = {**MASK_ALL, "card": "quarantine"}
    with pytest.raises(SensitiveContent, match="2 × card") as refused:
        screen(document(f"{CARD}, then {CARD}", f"and {EMAIL}"), policy)
    assert CARD not in str(refused.value) and "email" not in str(refused.value)
    with pytest.raises(SensitiveContent, match="1 × card"):
        screen(document("nothing here", title=f"Statement {CARD}"), policy)
