"""A fake Citadel for every test, and a real one for the contract's tests where CITADEL_URL and CITADEL_KEY name it."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import fake_citadel
import pytest

from citadel_client import CitadelClient


@dataclass(frozen=True)
class Place:
    """A server to talk to, and a word that no other test writes."""

    url: str
    key: str = field(repr=False)  # a failed test prints its arguments
    word: str


@pytest.fixture
def word() -> str:
    return f"zyx{uuid.uuid4().hex[:10]}"


@pytest.fixture
def fake() -> Iterator[tuple[str, fake_citadel.State]]:
    with fake_citadel.running() as started:
        yield started


@pytest.fixture(params=["fake", "real"])
def place(request: pytest.FixtureRequest, word: str) -> Place:
    """Each contract test runs twice: what holds for the fake must hold for a server."""
    if request.param == "fake":
        url, _ = request.getfixturevalue("fake")
        return Place(url, fake_citadel.KEY, word)
    if "CITADEL_URL" not in os.environ or "CITADEL_KEY" not in os.environ:
        pytest.skip("CITADEL_URL and CITADEL_KEY (scopes ingest, search, act_for, operate) name no running Citadel")
    return Place(os.environ["CITADEL_URL"], os.environ["CITADEL_KEY"], word)


@pytest.fixture
def client(place: Place) -> Iterator[CitadelClient]:
    with CitadelClient(place.url, place.key) as made:
        yield made
