"""The loop: asked, feedback, suggested, confirmed, measured, tuned, gated, promoted; and a worse model is blocked.

In this process, on a model without weights, so that the whole of it takes seconds; the commands are those of a user.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import citadel
from retrieval.search import Searcher
from store.pool import writing
from store.profiles import live_profile
from tests.conftest import Api, World

ANA, BEN = "user:ana@acme.example", "user:ben@acme.example"
BIRDS = {
    "heron": "stands in the weir and waits for fish", "kestrel": "hovers above the verge of the motorway",
    "osprey": "dives feet first into the loch", "plover": "runs along the tideline and stops",
    "curlew": "probes the mud with a long bill", "avocet": "sweeps the shallows from side to side",
    "dunlin": "turns in flocks over the estuary", "godwit": "flies from Alaska without a rest",
    "whimbrel": "whistles seven times in passing", "turnstone": "looks below pebbles for shrimps",
    "wren": "builds several nests and offers them", "swift": "sleeps on the wing in summer",
}  # fmt: skip

PARTS = (slice(0, 4), slice(-4, None))  # of what a bird does: a question each
ASKED = len(PARTS) * len(BIRDS)


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel …` on the test's database, which stands for a running stack; fails unless it ends with `status`."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state"),
           "CITADEL_LEXICAL": "rank-bm25", "CITADEL_SEARCH_DEADLINE_S": "60", "CITADEL_LATE_BOX_S": "60"}  # fmt: skip

    def run(*arguments: object, answers: str = "", status: int = 0) -> Any:
        done = CliRunner().invoke(citadel, [str(a) for a in arguments], env=env, input=answers, catch_exceptions=False)
        assert done.exit_code == status, (arguments, done.output)
        return done

    return run


@pytest.fixture
def searcher(searcher: Searcher) -> Searcher:
    return replace(searcher, traced=True, deadline_s=60)


def fill(world: World) -> None:
    for name, does in BIRDS.items():
        world.add(f"{name}.md", f"Of the {name}. The {name} {does}. It is a bird.", (ANA, BEN))
    world.add("rota.md", "Who counts the birds on Sunday: Ben, at the weir.", (BEN,))


def ask_all(api: Api) -> None:
    """Ana asks over HTTP for each bird, twice, and says which passage told her; once it is the wrong one."""
    agent = api.key("agent", "search", "act_for")

    def post(path: str, subject: str, status: int = 200, **body: Any) -> Any:
        answer = api.http.post(f"/v1/{path}", json=body, headers={**agent, "X-Citadel-Act-For": subject})
        assert answer.status_code == status, answer.text
        return answer.json()

    for name, words in [(name, does.split()[part]) for name, does in BIRDS.items() for part in PARTS]:
        question = f"Which bird {' '.join(words)}?"
        answer = post("search", ANA, query=question, top_k=3)
        cited = [passage["citation"] for passage in answer["passages"]]
        used = [citation["marker"] for citation in cited if citation["external_id"] == f"{name}.md"]
        assert len(used) == 1, name
        about = {"request_id": answer["request_id"], "query": question}
        post("feedback", ANA, helpful=True, used=used, **about)
        post("feedback", BEN, status=404, helpful=False, **about)
    question = "Who counts birds on Sunday?"
    answer = post("search", ANA, query=question, top_k=3)
    post("feedback", ANA, request_id=answer["request_id"], helpful=False, used=["[1]"], query=question,
         missing=[{"document": "rota.md"}])  # fmt: skip


def test_what_people_say_decides_what_is_promoted(
    api: Api, world: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    fill(world)
    run("fusion", "--dense-weight", "1")  # so that it is the model which decides
    ask_all(api)

    file = tmp_path / "suggestions.jsonl"
    told = json.loads(run("golden", "suggest", file, "--name", "birds", "--json").stdout)
    assert (told["questions"], told["pending"]) == (ASKED + 1, ASKED + 1)
    assert "rota.md is missing, and user:ana@acme.example sees no document of that name" in file.read_text()
    assert "Ben, at the weir" not in file.read_text()
    # newest first: what did not help is rejected, what did is confirmed
    kept = json.loads(run("golden", "review", file, "--name", "birds", "--json",
                          answers="n\n" + "y\n" * ASKED).stdout)  # fmt: skip
    assert kept["confirmed"] == ASKED == kept["set"]["questions"] and kept["pending"] == 0
    run("golden", "check", "birds")

    run("eval", "run", "birds", "--name", "main", "--k", "1,10", "--no-progress")
    tuned = json.loads(run("tune", "birds", "--over", "fusion", "--apply", "--no-progress", "--json").stdout)
    # nothing is better than every answer right, so nothing is changed
    assert tuned["before"]["mean"] == 1.0 and tuned["train"] == tuned["held"] == ASKED / 2 and not tuned["applied"]
    run("eval", "run", "birds", "--name", "candidate", "--k", "1,10", "--dense-weight", "0.9", "--no-progress")
    assert "the gate is open" in run("eval", "gate", "candidate", "--baseline", "main").stdout

    golden = tmp_path / "birds.jsonl"
    run("golden", "export", "birds", golden)
    run("profile", "build", "wide", "--model", "fake-256")
    run("profile", "evaluate", "wide", "--golden", golden)
    assert "wide is live" in run("profile", "promote", "wide", "--golden", golden).stdout
    assert live_name(world) == "wide"

    run("profile", "build", "blind", "--model", "fake-16")
    blocked = run("profile", "promote", "blind", "--golden", golden, status=1)
    assert "BLOCKED: the live profile stays" in blocked.stdout
    assert live_name(world) == "wide"


def live_name(world: World) -> str:
    with writing(world.store) as conn:
        return live_profile(conn, world.tenant_id).name
