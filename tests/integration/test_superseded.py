"""A passage of what its metadata says is replaced names the newer document, to those alone who may see that one."""

from typing import Any
from uuid import UUID

import pytest

from api.answers import search_out
from core.labels import make_labels
from core.records import SearchRequest
from ingest.erase import erase
from retrieval.search import Searcher, search
from store import documents
from store.pool import writing
from tests.conftest import World
from tests.integration.rows import fetch

ANA, BEN = "user:ana", "user:ben"


@pytest.fixture
def library(world: World) -> World:
    """A public policy that names its successor, which there is not yet."""
    world.add("policy-2023", "flights are booked by post", title="Travel 2023")
    fetch(world, 'UPDATE documents SET metadata = \'{"superseded_by": "policy-2025"}\' RETURNING 1')
    return world


def told(searcher: Searcher, world: World, who: str) -> Any:
    """All that goes out, but what each answer has of its own."""
    body = search_out(search(searcher, world.who(who), SearchRequest("booked by post", mode="lexical")), operator=False)
    return {**body, "request_id": None, "activity": None}


def marks(searcher: Searcher, world: World, who: str) -> dict[str, UUID | None]:
    body = told(searcher, world, who)
    return {p["citation"]["external_id"]: p["citation"]["superseded_by"] for p in body["passages"]}


def test_the_newer_one_is_named_to_who_may_see_it(library: World, searcher: Searcher) -> None:
    assert marks(searcher, library, ANA) == {"policy-2023": None}
    newer = library.add("policy-2025", "flights: in Wayfarer, not by post").document_id
    assert marks(searcher, library, ANA) == {"policy-2023": newer, "policy-2025": None}
    context = told(searcher, library, ANA)["context"]
    assert "Travel 2023, superseded\nflights are booked by post" in context and context.count("superseded") == 1


def test_to_others_it_might_as_well_not_be(library: World, searcher: Searcher) -> None:
    before = told(searcher, library, ANA)
    newer = library.add("policy-2025", "flights: in Wayfarer", (BEN,)).document_id
    assert told(searcher, library, ANA) == before
    assert marks(searcher, library, BEN)["policy-2023"] == newer
    with writing(library.store) as conn:
        documents.change_labels(conn, library.tenant_id, newer, make_labels(["public"]))
    assert marks(searcher, library, ANA)["policy-2023"] == newer
    erase(library.store, library.blobs, library.tenant_id, newer, by="service:test")
    assert told(searcher, library, ANA) == before


def test_only_what_can_be_read_of_the_same_source_supersedes(library: World, searcher: Searcher) -> None:
    library.submit("policy-2025", "not indexed yet")
    library.add("policy-2025", "of another source", source="elsewhere")
    assert marks(searcher, library, ANA)["policy-2023"] is None
    fetch(library, 'UPDATE documents SET metadata = \'{"superseded_by": "policy-2023"}\' RETURNING 1')  # itself
    fetch(library, "UPDATE documents SET metadata = '{\"superseded_by\": [1]}' WHERE external_id = 'x' RETURNING 1")
    assert marks(searcher, library, ANA)["policy-2023"] is None
