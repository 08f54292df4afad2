"""Training rerankers: what is learned, from what, how it is judged, and how what wins comes to be used.

The case that can be won is made so: a question's word stands in the wrong document of its topic, and the right one has
another word for it, which the embedder, knowing words alone, holds for a stranger. Five pairs of words are to be
learned; which topics they are asked about is new in the held-out part.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.training import Wanted, trained
from core.config import Settings
from core.errors import Conflict, Invalid
from core.records import SearchRequest
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.split import split
from models.trained import MANIFEST, MAP, read_manifest
from retrieval.rerank import RERANK_POOL
from retrieval.search import Searcher, search
from retrieval.trained import Trained
from store.pool import reading_tenant
from store.profiles import ways_of
from tests.conftest import World
from tests.integration.rows import fetch

ASKER = "user:otto"
MEANS = {"car": "automobile", "doctor": "physician", "house": "dwelling", "wage": "salary", "lawyer": "attorney"}
TOPICS = [f"topic{number}" for number in range(40)]
NAME = "synonyms"


def asked() -> GoldenSet:
    """Of each topic, a question by one of the five words."""
    words = list(MEANS)
    return GoldenSet(f"{NAME}.jsonl", "0", tuple(
        GoldenQuery(f"q{number}", f"{topic} {words[number % len(words)]}", ASKER, (Judgement(f"right-{topic}"),))
        for number, topic in enumerate(TOPICS)
    ))  # fmt: skip


@pytest.fixture
def taught(world: World) -> World:
    """Two public documents of each topic: the right one has the other word."""
    for query, topic in zip(asked().queries, TOPICS, strict=True):
        word = query.query.split()[1]
        world.add(f"right-{topic}", f"{topic} {MEANS[word]} and some more of it")
        world.add(f"wrong-{topic}", f"{topic} {word}")
    return world


@pytest.fixture
def settings(tmp_path: Path, app_url: str, maintenance_url: str) -> Settings:
    return Settings(state=tmp_path / "state", app_database_url=app_url, maintenance_database_url=maintenance_url,
                    model="fake", lexical="rank-bm25")  # fmt: skip


WANTED = Wanted(("late",), None, 80, 0, "cpu", 10, 0.3, NAME, None, apply=False, progress=False)


def serving(searcher: Searcher, settings: Settings) -> Searcher:
    return replace(searcher, trained=Trained(settings.trained()))


def right(searcher: Searcher, world: World, **more: Any) -> int:
    """How many held-out questions get their document first."""
    found = 0
    for query in split(asked(), WANTED.share).held_out.queries:
        answer = search(searcher, world.who(ASKER), SearchRequest(query.query, **more))
        assert answer.degraded == ()
        found += answer.passages[0].citation.external_id == query.relevant[0].document
    return found


def used(world: World) -> Any:
    with reading_tenant(world.store, world.tenant_id) as conn:
        return ways_of(conn, world.tenant_id).reranker


def test_what_wins_on_questions_never_seen_is_shipped_and_served(
    taught: World, settings: Settings, searcher: Searcher
) -> None:
    served = serving(searcher, settings)
    before = right(served, taught)
    outcome = trained(settings, asked(), replace(WANTED, apply=True))
    (trial,) = outcome.trials
    assert trial.reason == "" and trial.gain.low > 0
    held_out = len(outcome.parts.held_out.queries)
    assert right(served, taught) >= before + held_out / 3  # the very next search uses it
    assert right(served, taught, rerank="trained") == right(served, taught)
    assert right(served, taught, rerank="late") == before
    # what was told of it is what it does, in the search itself
    ranks = [1 / np.log2(1 + rank_of(served, taught, query)) for query in outcome.parts.held_out.queries]
    assert trial.figures.ndcg.mean == pytest.approx(float(np.mean(ranks)))

    folder = settings.trained() / NAME
    manifest = read_manifest(folder)
    assert used(taught) == outcome.shipped and outcome.shipped and outcome.shipped.digest == manifest.digest
    assert (manifest.kind, manifest.profile, manifest.pool) == ("late", taught.profile.name, RERANK_POOL)
    assert manifest.held_out["questions"] == held_out and manifest.held_out["gain"]["mean"] == trial.gain.mean
    assert manifest.trained_on["training"] + manifest.trained_on["left_out"] + held_out == len(TOPICS)
    mapping = np.load(folder / MAP, allow_pickle=False)
    assert np.linalg.norm(mapping, 2) == pytest.approx(1, abs=1e-5)
    ((detail,),) = fetch(taught, "SELECT detail FROM audit_log WHERE action = 'reranker.change'")
    assert detail["digest"] == manifest.digest
    assert not list((settings.state / "training").glob("*"))
    # and now it is the current one, which nothing that learns the same can beat
    again = trained(settings, asked(), replace(WANTED, name="again"))
    assert again.shipped is None and again.trials[0].gain.mean == 0
    assert again.current.values == trial.figures.values
    with pytest.raises(Conflict, match="another --name"):
        trained(settings, asked(), WANTED)


def rank_of(searcher: Searcher, world: World, query: GoldenQuery) -> float:
    request = SearchRequest(query.query, top_k=10, as_ranked=True)
    names = [p.citation.external_id for p in search(searcher, world.who(ASKER), request).passages]
    return names.index(query.relevant[0].document) + 1 if query.relevant[0].document in names else float("inf")


def test_a_host_without_these_very_files_answers_without_and_says_so(
    taught: World, settings: Settings, searcher: Searcher
) -> None:
    trained(settings, asked(), replace(WANTED, apply=True))
    file = settings.trained() / NAME / MAP
    np.save(file, np.load(file) * np.float32(0.5))
    for served in (searcher, serving(searcher, settings)):
        answer = search(served, taught.who(ASKER), SearchRequest("topic1 doctor"))
        assert answer.degraded == ("rerank",) and len(answer.passages) > 0
        assert [s.detail["failed"] for s in answer.activity if s.stage == "rerank"] == ["reranker_unavailable"]
    with pytest.raises(Invalid, match="train again"):
        read_manifest(file.parent)
    (file.parent / MANIFEST).unlink()
    with pytest.raises(Invalid, match="no trained reranker"):
        read_manifest(file.parent)


def test_what_is_learned_follows_from_what_everybody_sees(taught: World, settings: Settings) -> None:
    """Documents that some see move no bit of it, though who asks the held-out questions is among them."""
    one = trained(settings, asked(), replace(WANTED, name="one"))
    taught.groups({"group:hr": [ASKER]})
    for topic in TOPICS[:20]:
        taught.add(f"hidden-{topic}", f"{topic} doctor wage car automobile", ("group:hr",))
    two = trained(settings, asked(), replace(WANTED, name="two"))
    assert one.trials[0].note == two.trials[0].note and one.current.values != two.current.values
    assert one.shipped and two.shipped and one.shipped.digest == two.shipped.digest
