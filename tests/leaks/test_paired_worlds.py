"""What a caller cannot see changes nothing in an answer; `make leaks` asks 2,000 times."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher
from store.migrate import as_owner
from tests.conftest import Api, World
from tests.engines import FollowedAllTheTime
from tests.leaks.paired import differences


@pytest.fixture(params=["rank-bm25", "fast"])
def searcher(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Searcher]:
    """What searches the world, by either lexical engine; the fast one's replica changes all the time."""
    monkeypatch.setattr(
        "retrieval.legs.LOOK_S", 30.0
    )  # a busy machine's cut would be told of in one of the two answers
    fast = FollowedAllTheTime(world.store, tmp_path / "lexical") if request.param == "fast" else None
    opened = Searcher(world.store, world.embedder, fast or RankBm25Index(world.store))
    yield opened
    opened.threads.shutdown(cancel_futures=True)
    if fast:
        fast.close()


def test_hidden_documents_change_no_byte(api: Api) -> None:
    filled, wrong = differences(api, seed=5, count=120, size=20)
    assert wrong == []
    assert filled > 60


def test_a_count_over_hidden_documents_is_noticed(api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """As if statistics were taken over the whole tenant: the policies let its documents through."""
    with as_owner(database_url) as conn:
        conn.execute("""DO $$ BEGIN EXECUTE replace(pg_get_functiondef('visible_label_sets'::regproc),
                                                    'AND c.rank <= mine.subject_rank', ''); END $$""")
    _, wrong = differences(api, seed=6, count=20, size=12)
    assert wrong
