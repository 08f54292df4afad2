"""Agents' answers against what they cite, read as who asked; and a judge over real HTTP."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.errors import Invalid, JudgeUnavailable, Misconfigured
from core.records import Place
from eval.answers import read_answers
from eval.answers_page import answers_page
from eval.grounding import AgentAnswer, Grounding, check_answers, judged_by
from eval.judge import ChatJudge
from eval.page import to_html, to_markdown
from store.documents import Span
from tests.conftest import World
from tests.integration.conftest import ANA, BEN

LEAVE = "Parental leave is 26 weeks. Ask the people team about leave."
TRAVEL = "Flights are booked with the travel desk. Hotels too."
SECRET = "The takeover of Perch closes in May for nine million."


@pytest.fixture
def spans(world: World) -> dict[int, Span]:
    """Ana is in finance, both are staff: markers 1 and 2 are everybody's, 3 is Ana's, 4 is nothing."""
    world.groups({"group:staff": [ANA, BEN], "group:finance": [ANA]})
    added = [
        (world.add("leave.md", LEAVE, ("group:staff",)), LEAVE),
        (world.add("travel.md", TRAVEL, ("group:staff",)), TRAVEL),
        (world.add("board.md", SECRET, ("group:finance",)), SECRET),
    ]
    found = {n: Span(each.document_id, each.version, 0, len(text)) for n, (each, text) in enumerate(added, start=1)}
    return found | {4: Span(world.tenant_id, 1, 0, 10)}


def checked(world: World, spans: Mapping[int, Span | Place], *told: tuple[str, str]) -> Grounding:
    answers = [AgentAnswer(str(n), "?", who, text, spans) for n, (who, text) in enumerate(told)]
    return check_answers(world.store, world.tenant_id, world.embedder, answers)


def verdicts(found: Grounding) -> list[tuple[bool, bool]]:
    return [(claim.supported, claim.unsupported) for each in found.answers for claim in each.claims]


def test_coverage_and_the_unsupported_rate_by_hand(world: World, spans: dict[int, Span]) -> None:
    found = checked(
        world, spans,
        (BEN, "Parental leave is twenty-six weeks [1]. Parental leave is 27 weeks [1]. Flights are booked with the "
              "travel desk [1]. Hotels are booked there too [2]."),
        (BEN, "Parental leave is 26 weeks [1]."),
        (BEN, "I do not know?"),
        (BEN, ""),
    )  # fmt: skip
    first = found.answers[0]
    # 26 weeks: borne out; 27: not; flights: by the other passage that the answer cites; hotels: too
    assert verdicts(found)[:3] == [(True, False), (False, True), (False, False)]
    assert first.claims[1].lacks == ("27 weeks",)
    # the fake embedder counts words: "hotels", "too" and "." of six and of three
    assert first.claims[3].likeness == pytest.approx(3 / math.sqrt(6 * 3)) and first.claims[3].supported
    assert first.values() == {"coverage": 2 / 4, "unsupported": 1 / 4}
    assert found.measures["coverage"].mean == (2 / 4 + 1) / 2  # answers count alike, and silent ones not at all
    assert found.measures["unsupported"].mean == (1 / 4 + 0) / 2
    assert (found.silent, found.claims) == (2, 5)


def test_no_citations_and_no_answers(world: World, spans: dict[int, Span]) -> None:
    found = checked(world, spans, (BEN, "Parental leave is 26 weeks."), (BEN, "Parental leave is 26 weeks [9]."))
    assert verdicts(found) == [(False, True), (False, True)]
    assert found.measures["coverage"].mean == 0 and found.measures["unsupported"].mean == 1
    assert [claim.why for each in found.answers for claim in each.claims][0] == "cites nothing"
    silent = checked(world, {}, (BEN, ""))
    assert silent.measures == {} and silent.claims == 0
    assert to_html(answers_page("none", silent))


def test_a_citation_that_the_asker_may_not_see_is_as_one_that_is_not_there(
    world: World, spans: dict[int, Span]
) -> None:
    hidden, absent = SECRET.replace(".", " [3]."), SECRET.replace(".", " [4].")
    for_ana, for_ben, of_nothing = checked(world, spans, (ANA, hidden), (BEN, hidden), (BEN, absent)).answers
    assert for_ana.claims[0].supported
    (seen,), (gone,) = for_ben.claims, of_nothing.claims
    assert (seen.supported, seen.unsupported, seen.why, seen.likeness, seen.nearest, seen.lacks) == (
        gone.supported, gone.unsupported, gone.why, gone.likeness, gone.nearest, gone.lacks,
    ) == (False, True, "cites nothing that the asker may read", None, "", ())  # fmt: skip
    assert for_ben.texts == of_nothing.texts == {}


def test_a_document_may_be_cited_by_its_name(world: World, spans: dict[int, Span]) -> None:
    named = {
        1: Place("leave.md", 0, 27),
        2: Place("leave.md", 27, 2**30),
        3: Place("board.md", 0, 99),
        4: Place("x", 0, 9),
    }
    (found,) = checked(world, named, (BEN, "Parental leave is 26 weeks [1]. So it is [2][3][4].")).answers
    assert found.texts == {1: LEAVE[:27], 2: LEAVE[27:]} and found.claims[0].supported
    world.add("leave.md", "Another text.", ("group:staff",), source="other")
    assert checked(world, named, (BEN, "Parental leave is 26 weeks [1].")).answers[0].texts == {}  # which one?


def test_the_page_shows_a_claim_beside_what_its_asker_may_read(world: World, spans: dict[int, Span]) -> None:
    found = checked(world, spans, (BEN, f"{LEAVE[:-1]} [1]. It closes in May [3]."))
    for page in (to_html(answers_page("a", found)), to_markdown(answers_page("a", found))):
        assert "people team" in page and "nine million" not in page
    assert "<mark>Ask the people team about leave.</mark>" in to_html(answers_page("a", found))


# --- a judge ------------------------------------------------------------------------------------------------------


class Model(BaseHTTPRequestHandler):
    """Says SUPPORTED where a passage holds the claim's last word; what it is asked is kept on the server."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append((self.path, self.headers["Authorization"], body))
        told = json.loads(body["messages"][1]["content"])
        holds = told["claim"].rstrip(".").split()[-1] in " ".join(told["passages"])
        said = server.says or ("SUPPORTED" if holds else "unsupported.")
        answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def model() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.asked, server.says, server.status = [], "", 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_judge_stands_beside_the_verdict(world: World, spans: dict[int, Span], model: Any) -> None:
    told = (
        BEN,
        "Parental leave is 26 weeks [1]. Parental leave is 27 days [1]. It closes in May [3]. Nobody knows it.",
    )
    found = checked(world, spans, told)
    with closing(ChatJudge(model.url, "any", "key")) as judge:
        judged = judged_by(judge, found)
    assert judged.judge is not None and judged.measures == found.measures
    assert (judged.judge.supported, judged.judge.unsupported, judged.judge.agrees, judged.judge.failed) == (1, 1, 2, 0)
    assert [claim.judged for claim in judged.answers[0].claims] == [True, False, None, None]
    assert len(model.asked) == 2 and SECRET not in json.dumps(model.asked)  # only what the asker may read leaves
    path, authorization, body = model.asked[0]
    assert (path, authorization, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer key", "any", 0)


def test_a_judge_that_fails_is_told_and_changes_nothing(world: World, spans: dict[int, Span], model: Any) -> None:
    found = checked(world, spans, (BEN, "Parental leave is 26 weeks [1]."))
    for says, status, reason in (("perhaps", 200, "neither SUPPORTED"), ("", 500, "answered 500")):
        model.says, model.status = says, status
        with closing(ChatJudge(model.url, "any")) as judge:
            judged = judged_by(judge, found)
        assert judged.judge is not None and judged.judge.failed == 1 and reason in judged.judge.failures[0]
        assert judged.measures == found.measures and judged.answers[0].claims[0].judged is None
    with (
        closing(ChatJudge("http://127.0.0.1:9/v1", "any")) as judge,
        pytest.raises(JudgeUnavailable, match="did not answer"),
    ):
        judge.supports("a", ["b"])
    with pytest.raises(Misconfigured, match="CITADEL_JUDGE_MODEL"):
        ChatJudge("http://127.0.0.1:9/v1", "")


# --- command ------------------------------------------------------------------------------------------------------


def line(spans: dict[int, Span], answer: str, **more: Any) -> str:
    citations = [
        {"marker": f"[{n}]", "document_id": str(s.document_id), "version": s.version, "start": s.start, "end": s.end}
        for n, s in spans.items()
    ]
    return json.dumps({"query": "?", "as": BEN, "answer": answer, "citations": citations} | more)


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel eval answers …` on the test's database."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state")}  # fmt: skip

    def invoke(*arguments: Any, **more: str) -> Any:
        asked = ["eval", "answers", *map(str, arguments)]
        return CliRunner().invoke(citadel, asked, env=env | more, catch_exceptions=False)

    return invoke


def test_the_command(world: World, spans: dict[int, Span], run: Callable[..., Any], tmp_path: Path, model: Any) -> None:
    file, html = tmp_path / "answers.jsonl", tmp_path / "answers.html"
    passages = [{"text": "…", "citation": each} for each in json.loads(line(spans, ""))["citations"]]
    second = json.loads(line(spans, "It closes in May for 9 million [3].", passages=passages, id="perch"))
    del second["citations"]
    file.write_text(line(spans, "Parental leave is 26 weeks [1].") + "\n\n" + json.dumps(second) + "\n")
    done = run(file, "--html", html)
    assert done.exit_code == 0 and "2 answers, 0 without a claim; 2 claims, 1 supported, 1 unsupported" in done.stdout
    assert "perch" in done.stdout and "nothing that the asker may read" in done.stdout
    told = json.loads(run(file, "--json", CITADEL_JUDGE_URL=model.url, CITADEL_JUDGE_MODEL="any").stdout)
    assert told["measures"]["coverage"]["mean"] == 0.5 and told["judge"]["agrees"] == 1
    assert told["answers"][0]["claims"][0]["verdict"] == "supported"
    assert LEAVE[:10] in html.read_text() and "takeover" not in html.read_text() + done.stdout


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "holds no answers"), ("{", "no JSON"), ("[]", "an answer is an object"),
        ('{"query": "?"}', "`as` is missing"),
        ('{"query": "?", "as": "ana", "answer": "", "citations": []}', "not an access label"),
        ('{"query": "?", "as": "user:a", "answer": ""}', "give `citations`"),
        ('{"query": "?", "as": "user:a", "answer": "", "citations": {}}', "is a list"),
        ('{"query": "?", "as": "user:a", "answer": "", "citations": [1]}', "citation 1 is no object"),
        ('{"query": "?", "as": "user:a", "answer": "", "citations": [{"marker": "x"}]}', "a marker is a number"),
        ('{"query": "?", "as": "user:a", "answer": "", "citations": [{"document_id": "x"}]}', "give document_id"),
        ('{"query": "?", "as": "user:a", "answer": "", "citations": [{"document_id": '
         '"00000000-0000-0000-0000-000000000000", "version": 1, "start": 5, "end": 2}]}', "start is not behind end"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, written: str, told: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(written)
    with pytest.raises(Invalid, match=told):
        read_answers(file)
