"""Three times what a process can do: it goes on doing what it can, and tells the rest to come again."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import httpx
import pytest

from api.admission import PLACES
from api.service import Service
from retrieval.legs import Ground
from retrieval.lexical import RankBm25Index
from retrieval.search import SEARCHES, Searcher
from retrieval.stages import Proposed
from tests.conftest import World
from tests.integration.serving import NoBroker, bearer, make_key, serving

LEG_S = 0.25  # that a search takes, whatever else the machine does: so a slow machine can do it too
SUSTAINED = SEARCHES / LEG_S  # searches a second
SECONDS = 3.0


def slow_leg(searcher: Searcher, ground: Ground, questions: tuple[str, ...], timeout_s: float) -> Proposed:
    """A leg that finds nothing, in a while."""
    time.sleep(LEG_S)
    return Proposed([])


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    legs = {"dense": slow_leg, "lexical": slow_leg}
    searcher = Searcher(world.store, world.embedder, RankBm25Index(world.store), legs=legs)
    with serving(Service(world.store, world.blobs, searcher, NoBroker(), 2**20)) as client:
        client.headers.update(bearer(make_key(world, "agent", "search")))
        yield client


def test_three_times_the_load_is_answered_as_well_as_once(client: httpx.Client) -> None:
    """At least 90 % of what it can do, each within what those before it take; the others are told at once."""

    def ask(number: int) -> tuple[int, float, bool]:
        time.sleep(max(0.0, began + number / (3 * SUSTAINED) - time.monotonic()))
        started = time.monotonic()
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)  # a light one
        connection.request("POST", "/v1/search", b'{"query": "lamp"}', headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.monotonic() - started, "retry-after" in answer.headers

    headers = {"Authorization": client.headers["authorization"], "Content-Type": "application/json"}
    count = int(3 * SUSTAINED * SECONDS)
    client.post("/v1/search", json={"query": "lamp"})
    began = time.monotonic() + 0.1
    with ThreadPoolExecutor(count) as threads:  # one each: nobody waits for another's answer before asking
        answers = list(threads.map(ask, range(count)))
    elapsed = time.monotonic() - began
    assert {status for status, _, _ in answers} == {200, 429}
    assert all(retry for status, _, retry in answers if status == 429)
    assert sum(status == 200 for status, _, _ in answers) >= 0.9 * SUSTAINED * min(elapsed, SECONDS)
    assert max(took for _, took, _ in answers) < 2 * PLACES / SUSTAINED
    assert client.post("/v1/search", json={"query": "lamp"}).status_code == 200  # and is as before
