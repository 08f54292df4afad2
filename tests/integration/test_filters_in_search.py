"""What each filter finds among real rows, and that no filter opens anything or changes a statement."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from core.errors import CitadelError, Invalid
from core.records import Labels, SearchRequest, Submission
from retrieval.search import Searcher, search
from store import documents, sources
from store.pool import open_store, writing
from tests.conftest import World
from tests.integration.rows import fetch

METADATA: dict[str, dict[str, Any]] = {
    "a": {"team": "ops", "year": 2024, "live": True, "note": "100% sure", "tags": ["x", "y"]},
    "b": {"team": "it", "year": 2025.5, "live": False, "note": "%(tenant)s", "deep": {"er": 1}},
    "c": {"team": None, "year": "2024", "live": 1},
    "d": {},
}

LANGUAGES = {"a": "en", "b": "de", "hidden": "en"}  # nothing is told of the others


@pytest.fixture
def library(world: World) -> World:
    """Four public documents with metadata, one hidden, all with the word `shelf`."""
    for name, metadata in METADATA.items():
        put(world, name, Labels(("public",)), metadata)
    put(world, "hidden", Labels(("user:ben",)), {"team": "ops", "year": 2024, "live": True})
    return world


def put(world: World, name: str, labels: Labels, metadata: dict[str, Any]) -> None:
    """Submit with metadata, a title and a uri, and index."""
    source = "left" if name in "ab" else "right"
    submission = Submission(name, f"shelf {name}".encode(), labels, source, f"Title {name}", "text/plain",
                            uri=f"https://x.example/{name}?q=1%202", metadata=metadata)  # fmt: skip
    key = world.blobs.put(submission.content)
    with writing(world.store) as conn:
        source_id = sources.ensure_api_source(conn, world.tenant_id, source).id
        submitted = documents.submit(conn, world.tenant_id, source_id, submission, key)
    assert world.index(submitted)
    fetch(world, "UPDATE versions SET language = %s WHERE document_id = %s RETURNING 1", LANGUAGES.get(name),
          submitted.document_id)  # fmt: skip


def found(library: World, searcher: Searcher, filters: dict[str, Any]) -> str:
    """Names of the documents found, by both legs alike."""
    answers = []
    for mode in ("dense", "lexical"):
        answer = search(searcher, library.who("user:ana"), SearchRequest("shelf", top_k=50, mode=mode, filters=filters))
        assert not answer.degraded
        answers.append("".join(sorted(p.citation.external_id for p in answer.passages)))
    assert answers[0] == answers[1]
    return answers[0]


CASES: list[tuple[dict[str, Any], str]] = [
    ({"external_id": "a"}, "a"),
    ({"external_id": {"$eq": "a"}}, "a"),
    ({"external_id": {"$ne": "a"}}, "bcd"),
    ({"external_id": {"$in": ["a", "c", "hidden", "absent"]}}, "ac"),
    ({"external_id": {"$gt": "b"}}, "cd"),
    ({"external_id": {"$gte": "b", "$lt": "d"}}, "bc"),
    ({"external_id": {"$lte": "b"}}, "ab"),
    ({"source": "left"}, "ab"),
    ({"source": {"$ne": "left"}}, "cd"),
    ({"title": "Title c"}, "c"),
    ({"title": {"$gte": "T", "$lt": "U"}}, "abcd"),
    ({"uri": "https://x.example/b?q=1%202"}, "b"),  # a percent sign is no placeholder
    ({"mime_type": "text/plain"}, "abcd"),
    ({"mime_type": "text/html"}, ""),
    ({"language": "en"}, "a"),
    ({"language": {"$in": ["en", "de"]}}, "ab"),
    ({"language": {"$ne": "en"}}, "bcd"),
    ({"$or": [{"language": "de"}, {"metadata.team": None}], "source": "left"}, "b"),
    ({"metadata.team": "ops"}, "a"),
    ({"metadata.team": None}, "c"),
    ({"metadata.team": {"$ne": "ops"}}, "bcd"),
    ({"metadata.team": {"$in": ["ops", "it", None]}}, "abc"),
    ({"metadata.team": {"$gt": "it"}}, "a"),
    ({"metadata.year": 2024}, "a"),
    ({"metadata.year": 2024.0}, "a"),
    ({"metadata.year": "2024"}, "c"),
    ({"metadata.year": {"$gte": 2000}}, "ab"),  # numbers are compared with numbers,
    ({"metadata.year": {"$gte": "2000"}}, "c"),  # text with text
    ({"metadata.year": {"$gt": 2024, "$lt": 2026}}, "b"),
    ({"metadata.live": True}, "a"),
    ({"metadata.live": 1}, "c"),
    ({"metadata.live": {"$ne": True}}, "bcd"),
    ({"metadata.note": "100% sure"}, "a"),
    ({"metadata.note": "%(tenant)s"}, "b"),
    ({"metadata.deep.er": 1}, "b"),
    ({"metadata.tags.1": "y"}, "a"),
    ({"metadata.absent": 1}, ""),
    ({"metadata.absent": {"$ne": 1}}, "abcd"),
    ({"metadata.year": 10**300}, ""),
    ({"$or": [{"external_id": "a"}, {"metadata.team": "it"}]}, "ab"),
    ({"$and": [{"source": "left"}, {"metadata.team": "it"}]}, "b"),
    ({"source": "left", "metadata.team": "it"}, "b"),
    ({"$or": [{"external_id": "a"}, {"external_id": "d"}], "source": "right"}, "d"),  # the groups bind
    ({"source": "right", "$or": [{"external_id": "a"}, {"external_id": "d"}]}, "d"),
    ({"$or": [{"external_id": "hidden"}, {"external_id": {"$ne": "x"}}]}, "abcd"),
    ({"created_at": {"$gte": "2001-01-01"}}, "abcd"),
    ({"created_at": {"$lt": "2001-01-01T00:00:00+02:00"}}, ""),
]


def test_each_filter_finds_what_it_says(library: World, searcher: Searcher) -> None:
    for filters, expected in CASES:
        assert found(library, searcher, filters) == expected, filters


ATTACKS = (
    "' OR true --",
    "'; DROP TABLE documents; --",
    "\\' OR 1=1 --",
    "') OR true) --",
    "$1",
    "%s",
    "%(label_sets)s",
    "%%",
    "{}",
    "{0}",
    "E'\\x27'",
    '"; SELECT pg_sleep(9)',
    "/*",
)


def test_no_value_or_key_changes_the_statement(library: World, searcher: Searcher) -> None:
    for attack in ATTACKS:
        for field in ("external_id", "source", "uri", "metadata.team"):
            for operator in ("$eq", "$in"):
                assert found(library, searcher, {field: {operator: [attack] if operator == "$in" else attack}}) == ""
        assert found(library, searcher, {f"metadata.{attack}": 1}) == ""
        assert found(library, searcher, {f"metadata.{attack}": {"$ne": 1}}) == "abcd"
        with pytest.raises(Invalid):
            found(library, searcher, {attack: "x"})
        with pytest.raises(Invalid):
            found(library, searcher, {"title": {attack: "x"}})


def test_values_that_the_database_does_not_take_are_invalid(library: World, searcher: Searcher) -> None:
    for filters in (
        {"metadata.year": float("nan")},
        {"metadata.year": float("inf")},
        {"created_at": {"$gt": "0001-01-01T00:00:00+23:59"}},
        {"metadata.year": 10**4000},  # as many digits as a JSON parser lets through
    ):
        try:
            assert found(library, searcher, filters) in ("", "abcd")
        except CitadelError as error:
            assert isinstance(error, Invalid)


def test_a_time_without_a_zone_is_utc(
    library: World, searcher: Searcher, database_url: str, app_url: str, maintenance_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        name = psycopg.sql.Identifier(admin.info.dbname)
        admin.execute(psycopg.sql.SQL("ALTER DATABASE {} SET timezone = 'Asia/Tokyo'").format(name))
    now = datetime.now(UTC).replace(tzinfo=None)
    elsewhere = open_store(app_url, maintenance_url)
    try:
        there = Searcher(elsewhere, library.embedder, searcher.lexical)
        for shift, expected in ((timedelta(hours=-1), "abcd"), (timedelta(hours=1), "")):
            filters = {"created_at": {"$gte": (now + shift).isoformat()}}
            answer = search(there, library.who("user:ana"), SearchRequest("shelf", mode="dense", filters=filters))
            assert "".join(sorted(p.citation.external_id for p in answer.passages)) == expected
    finally:
        elsewhere.close()
