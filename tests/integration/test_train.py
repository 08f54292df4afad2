"""Training rerankers: what is learned, from what, how it is judged, and how what wins comes to be used.

The case that can be won is made so: a question's word stands in the wrong document of its topic, and the right one has
another word for it, which the embedder, knowing words alone, holds for a stranger. Five pairs of words are to be
learned; which topics they are asked about is new in the held-out part.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import citadel
from cli.train import NOTHING_SHIPPED
from cli.training import Wanted, trained
from core.config import Settings, environment_of
from core.errors import Conflict, Invalid
from core.records import SearchRequest
from core.trained import TrainedReranker
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.parts import divide
from models.trained import MAP, digest_of, read_manifest, write_map
from retrieval.rerank import RERANK_POOL
from retrieval.search import Searcher, search
from retrieval.trained import Trained
from store.pool import reading_tenant, writing
from store.profiles import set_reranker, ways_of
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
    for query in divide(asked(), WANTED.share).held_out.queries:
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
    with pytest.raises(Conflict, match="another --name"):
        trained(settings, asked(), WANTED)
    told = json.loads(cli(settings, "reranker", golden_file(settings), "--kind", "late", "--steps", "80", "--name",
                          "again", "--device", "cpu", "--json", status=NOTHING_SHIPPED))  # fmt: skip
    (again,) = told["trials"]
    assert told["shipped"] is None and again["gain"]["mean"] == 0 and "not show it to be better" in again["reason"]
    assert told["current"]["nDCG@10"]["mean"] == pytest.approx(trial.figures.ndcg.mean)
    assert not (settings.trained() / "again").exists() and used(taught) == outcome.shipped
    # and back again
    (folder / "more").write_text("")
    with pytest.raises(Invalid, match="train again"):
        read_manifest(folder)
    (folder / "more").unlink()
    listed = json.loads(cli(settings, "list", "--json"))
    assert listed["used"]["name"] == NAME and list(listed["rerankers"]) == [NAME]
    cli(settings, "use", "default")
    assert used(taught) is None and right(served, taught) == before
    cli(settings, "use", NAME)
    assert used(taught) == outcome.shipped


def golden_file(settings: Settings) -> str:
    path = settings.state / f"{NAME}.jsonl"
    lines = [{"id": q.id, "query": q.query, "as": q.subject, "relevant": [{"document": q.relevant[0].document}]}
             for q in asked().queries]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def cli(settings: Settings, *command: str, status: int = 0) -> str:
    done = CliRunner().invoke(citadel, ["train", *command], env=environment_of(settings), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.stdout


def rank_of(searcher: Searcher, world: World, query: GoldenQuery) -> float:
    request = SearchRequest(query.query, top_k=10, as_ranked=True)
    names = [p.citation.external_id for p in search(searcher, world.who(ASKER), request).passages]
    return names.index(query.relevant[0].document) + 1 if query.relevant[0].document in names else float("inf")


def test_a_host_without_these_very_files_answers_without_and_says_so(
    world: World, settings: Settings, searcher: Searcher
) -> None:
    world.add("one", "a doctor")
    world.add("two", "two doctors of a house")
    file = settings.trained() / NAME / MAP
    write_map(file.parent, np.eye(128))
    which = TrainedReranker(NAME, "late", digest_of(file.parent), 0.5, 50, world.profile.id)
    with writing(world.store) as conn:
        set_reranker(conn, world.tenant_id, which)
    request, served = SearchRequest("doctor"), serving(searcher, settings)
    assert search(served, world.who(ASKER), request).degraded == ()
    elsewhere = replace(which, profile_id=world.profile.id + 1)  # proved behind another index: the default is used
    with writing(world.store) as conn:
        set_reranker(conn, world.tenant_id, elsewhere)
    assert search(searcher, world.who(ASKER), request).degraded == ()
    with writing(world.store) as conn:
        set_reranker(conn, world.tenant_id, which)
    write_map(file.parent, np.eye(128)[::-1])
    for host in (searcher, serving(searcher, settings)):
        answer = search(host, world.who(ASKER), request)
        assert answer.degraded == ("rerank",) and len(answer.passages) > 0
        assert [s.detail["failed"] for s in answer.activity if s.stage == "rerank"] == ["reranker_unavailable"]
    with pytest.raises(Invalid, match="no trained reranker"):
        read_manifest(file.parent)


def test_what_is_learned_follows_from_what_everybody_sees(taught: World, settings: Settings) -> None:
    """Documents that some see move no bit of it, though who asks the held-out questions is among them."""
    one = trained(settings, asked(), replace(WANTED, name="one"))
    taught.groups({"group:hr": [ASKER]})
    for topic in TOPICS[:12]:
        taught.add(f"hidden-{topic}", f"{topic} doctor wage car automobile", ("group:hr",))
    two = trained(settings, asked(), replace(WANTED, name="two"))
    assert one.trials[0].note == two.trials[0].note and one.current.values != two.current.values
    assert one.shipped and two.shipped and one.shipped.digest == two.shipped.digest
