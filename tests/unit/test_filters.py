"""What a search filter may not be: each mistake is told, none reaches the database. What it finds: test_search.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from core.errors import InvalidFilter
from store.filters import MAX_DEPTH, MAX_TERMS, OPERATORS, compile_filter


def nested(levels: int) -> dict[str, Any]:
    """A filter of that many groups around one condition."""
    found: dict[str, Any] = {"title": "x"}
    for _ in range(levels):
        found = {"$and": [found]}
    return found


def test_nothing_to_filter_is_no_filter() -> None:
    assert compile_filter(None) is None
    assert compile_filter({}) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"nope": 1}, "unknown field 'nope'"),
        ({"metadata.": 1}, "unknown field"),
        ({"metadata": {"team": "ops"}}, "unknown operator 'team'"),
        ({"d.tenant_id": "x"}, "unknown field"),
        ({"label_set_id": 1}, "unknown field"),
        ({"$nope": []}, "unknown operator '$nope'"),
        ({"$not": {"title": "x"}}, "unknown operator"),
        ({"title": {"$regex": "x"}}, "unknown operator '$regex'"),
        ({"title": {"eq": "x"}}, "unknown operator 'eq'"),
        ({"title": {}}, "needs a condition"),
        ({"title": None}, "compared with text"),
        ({"title": 3}, "compared with text"),
        ({"title": ["a"]}, "compared with text"),
        ({"title": {"$in": "abc"}}, "takes a list"),
        ({"title": {"$in": []}}, "at least one value"),
        ({"title": {"$in": [["a"]]}}, "compared with text"),
        ({"title": "a\0b"}, "NUL"),
        ({"title": "\ud800"}, "surrogates"),
        ({"metadata.a": "a\0b"}, "NUL"),
        ({"metadata.a": "\udfff"}, "surrogates"),
        ({"metadata.\0": 1}, "NUL"),
        ({"metadata.\ud800": 1}, "surrogates"),
        ({"metadata.a": {"$eq": {"b": 1}}}, "compared with text, numbers"),
        ({"metadata.a": {"$eq": [1]}}, "compared with text, numbers"),
        ({"created_at": "yesterday"}, "ISO 8601"),
        ({"created_at": 1700000000}, "compared with text"),
        ({"created_at": {"$gte": "2026-13-01"}}, "ISO 8601"),
        ({"$and": []}, "takes a list"),
        ({"$or": {"title": "x"}}, "takes a list"),
        ({"$or": [{}]}, "an object of fields"),
        ({"$or": ["x"]}, "an object of fields"),
        ({"$and": [{"title": "x"}, None]}, "an object of fields"),
    ],
)
def test_a_mistake_is_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        compile_filter(wrong)
    assert told in str(raised.value)


def test_depth_and_size_have_limits() -> None:
    assert compile_filter(nested(MAX_DEPTH)) is not None
    assert compile_filter({"title": {"$in": ["x"] * MAX_TERMS}}) is not None
    for beyond in (nested(MAX_DEPTH + 1), nested(100), nested(400), {"title": {"$in": ["x"] * (MAX_TERMS + 1)}}):
        with pytest.raises(InvalidFilter):
            compile_filter(beyond)


fields = ("title", "source", "created_at", "metadata.a", "metadata.a.b", "$and", "$or", *OPERATORS)
keys = st.sampled_from(fields) | st.text()
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=3))
def test_whatever_comes_is_a_condition_or_invalid(anything: dict[str, Any]) -> None:
    try:
        found = compile_filter(anything)
    except InvalidFilter:
        return
    assert found is None or isinstance(found, sql.Composable)
