"""From feedback to suggestions to a golden set: what is suggested, and that nothing unconfirmed gets in."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.errors import InvalidGolden
from core.feedback import Feedback, Missing
from core.records import Labels, SearchAnswer, SearchRequest
from eval import review
from eval.golden import GoldenQuery, GoldenSet, Judgement, read_golden
from eval.suggest import Suggested, suggest
from ingest.erase import erase
from retrieval.search import Searcher, search
from retrieval.traced import keep_feedback
from store import asked, documents
from store.asked import Tracing
from store.pool import writing
from store.traces import traces
from tests.conftest import World
from tests.integration.rows import fetch

ANA, BEN = "user:ana", "user:ben"
HERON = "The heron nests at the weir from March on."
OWL = "The owl hunts in the barn at night."


@pytest.fixture
def traced(world: World, searcher: Searcher) -> Searcher:
    with writing(world.store) as conn:
        asked.set_tracing(conn, world.tenant_id, Tracing(rate=1.0))
    world.add("heron.md", f"# Birds\n\n## Heron\n\n{HERON}", (ANA, BEN))
    world.add("owl.md", OWL, (ANA,))
    world.add("secret.md", "The eagle nests where only Ben knows.", (BEN,))
    return replace(searcher, traced=True)


def asks(searcher: Searcher, world: World, query: str, subject: str = ANA) -> SearchAnswer:
    return search(searcher, world.who(subject), SearchRequest(query, top_k=2, mode="lexical"))


def says(world: World, answer: SearchAnswer, subject: str = ANA, **more: Any) -> None:
    keep_feedback(world.store, world.who(subject), Feedback(answer.request_id, **more), uuid4())


def suggested(world: World, searcher: Searcher) -> dict[str, Suggested]:
    with writing(world.store) as conn:
        kept = asked.listed(conn, world.tenant_id, None, 100)

    def find(subject: str, words: str) -> Any:
        return search(searcher, world.who(subject), SearchRequest(words, top_k=3)).passages

    return {each.query: each for each in suggest(world.store, world.tenant_id, kept, find).questions}


def told(one: Suggested) -> list[tuple[str, int, str | None]]:
    return [(s.judgement.document, s.judgement.grade, s.judgement.quote) for s in one.suggestions]


def test_each_thing_that_is_said_suggests_what_it_means(world: World, traced: Searcher, searcher: Searcher) -> None:
    says(world, asks(traced, world, "heron nests"), helpful=True, used=(1,))
    says(world, asks(traced, world, "owl"), helpful=False, missing=(Missing("heron.md"), Missing("secret.md"),
                                                                    Missing("none.md")), comment="No.")  # fmt: skip
    says(
        world, asks(traced, world, "barn"), missing=(Missing(text="nests at the weir"), Missing(text="heron in March"))
    )
    asks(traced, world, "owl hunts")
    found = suggested(world, searcher)
    heron = found["heron nests"].suggestions[0]
    assert (heron.judgement.document, heron.judgement.grade) == ("heron.md", 2)
    assert HERON in (heron.judgement.quote or "") and "was used, and the answer helped" in heron.reason
    assert heron.heading[-1:] == ("Heron",) or heron.heading == ()
    assert told(found["owl"]) == [("owl.md", 1, OWL), ("heron.md", 2, None)]
    # what she may not see and what is not there are told apart by nobody
    assert found["owl"].said == (
        "the answer did not help", "said: No.",
        f"secret.md is missing, and {ANA} sees no document of that name",
        f"none.md is missing, and {ANA} sees no document of that name",
    )  # fmt: skip
    barn = told(found["barn"])
    assert barn[0] == ("heron.md", 2, "nests at the weir") and {document for document, *_ in barn} <= {
        "heron.md", "owl.md"}  # fmt: skip
    assert told(found["owl hunts"]) == [("owl.md", 1, OWL)] and not found["owl hunts"].told


def test_what_the_asker_sees_no_more_is_not_suggested(world: World, traced: Searcher, searcher: Searcher) -> None:
    owl = world.add("owl.md", f"{OWL} Again.", (ANA,))
    says(world, asks(traced, world, "owl"), helpful=True, used=(1,), missing=(Missing(text="eagle nests"),))
    assert told(suggested(world, searcher)["owl"])[0] == ("owl.md", 2, f"{OWL} Again.")
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, owl.document_id, Labels((BEN,)))
    found = suggested(world, searcher)["owl"]
    assert not {"owl.md", "secret.md"} & {document for document, *_ in told(found)}
    assert "Again" not in str(found)


def test_a_passage_that_changed_is_suggested_as_its_document(
    world: World, traced: Searcher, searcher: Searcher
) -> None:
    says(world, asks(traced, world, "owl"), helpful=True, used=(1,))
    world.add("owl.md", "Something else altogether.", (ANA,))
    (one,) = suggested(world, searcher)["owl"].suggestions
    assert (one.judgement.document, one.judgement.quote) == (
        "owl.md",
        None,
    ) and "something else there now" in one.reason
    world.add("owl.md", f"{OWL} It is so. {OWL}", (ANA,))  # where it stands twice, nobody knows which
    (one,) = suggested(world, searcher)["owl"].suggestions
    assert one.judgement.quote is None


def test_equal_questions_of_one_person_are_one(world: World, traced: Searcher, searcher: Searcher) -> None:
    for helpful in (True, False):
        says(world, asks(traced, world, "heron"), helpful=helpful, used=(1,))
    says(world, asks(traced, world, "heron", BEN), BEN, helpful=True, used=(1,))
    with writing(world.store) as conn:
        kept = asked.listed(conn, world.tenant_id, None, 100)
    found = suggest(world.store, world.tenant_id, kept, lambda subject, words: ())
    assert sorted((q.subject, len(q.requests), len(q.suggestions)) for q in found.questions) == [
        (ANA, 2, 1), (BEN, 1, 1)]  # fmt: skip


def test_a_question_without_its_words_is_counted(world: World, searcher: Searcher) -> None:
    says(world, asks(searcher, world, "heron"), helpful=True)
    with writing(world.store) as conn:
        kept = asked.listed(conn, world.tenant_id, None, 100)
    found = suggest(world.store, world.tenant_id, kept, lambda subject, words: ())
    assert found.questions == () and found.left_out == {"the question's words are not known": 1}


# --- the file -------------------------------------------------------------------------------------------------------


def line(**more: Any) -> dict[str, Any]:
    judgement = {"document": "heron.md", "grade": 2, "suggested": "was used", "confirmed": None}
    return {"query": "heron?", "as": ANA, "tags": ["feedback"], "suggested": {}, "relevant": [judgement], **more}


def test_only_what_is_confirmed_becomes_golden(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    two = line(query="owl?", relevant=[{"document": d, "grade": 1, "confirmed": c} for d, c in
                                       (("a", True), ("b", False), ("c", None))])  # fmt: skip
    review.write(file, [line(), two])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (query,) = review.confirmed(review.read(file))
    assert (query.query, query.subject, query.relevant) == ("owl?", ANA, (Judgement("a"),))
    with pytest.raises(InvalidGolden, match="golden review"):
        read_golden(file)
    for wrong in ({"relevant": [{"document": "a", "confirmed": "yes"}]}, {"relevant": "x"}, {"relevant": [{}]}):
        review.write(file, [line(**wrong)])
        with pytest.raises(InvalidGolden, match="s.jsonl:1"):
            review.read(file)
    with pytest.raises(InvalidGolden, match="line 1"):
        review.confirmed([line(relevant=[{"document": "a", "grade": 9, "confirmed": True}])])


def test_confirmed_judgements_join_those_that_the_set_has() -> None:
    old = GoldenQuery("q1", "heron?", ANA, (Judgement("a", 3),), ("x",), ("birds",))
    new = GoldenQuery("q-new", "heron?", ANA, (Judgement("a", 1), Judgement("b", 2)), (), ("feedback",))
    other = GoldenQuery("q2", "heron?", BEN, (Judgement("a"),))
    both = review.joined("birds", GoldenSet("birds", "", (old,)), [new, other])
    joined = GoldenQuery("q1", "heron?", ANA, (Judgement("a", 3), Judgement("b", 2)), ("x",), ("birds", "feedback"))
    assert both.queries == (joined, other)
    with pytest.raises(InvalidGolden, match="relevant and forbidden"):
        review.joined("birds", GoldenSet("birds", "", (old,)), [GoldenQuery("", "heron?", ANA, (Judgement("x"),))])


# --- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state"),
           "CITADEL_LEXICAL": "rank-bm25"}  # fmt: skip

    def run(*arguments: object, answers: str = "", status: int = 0) -> Any:
        done = CliRunner().invoke(citadel, [str(a) for a in arguments], env=env, input=answers, catch_exceptions=False)
        assert done.exit_code == status, done.output
        return done

    return run


def test_a_person_confirms_rejects_skips_and_goes_on_another_time(
    world: World, traced: Searcher, run: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "s.jsonl"
    for query in ("heron nests", "owl", "barn", "weir"):
        says(world, asks(traced, world, query), helpful=True, used=(1,), comment="\x1b[31mred")
    first = run("golden", "suggest", file, "--name", "birds", "--json")
    assert json.loads(first.stdout)["pending"] == 4
    assert "4 judgements" not in run("golden", "review", file, "--no-ask").stdout
    half = run("golden", "review", file, "--name", "birds", answers="y\nwhat\nn\nq\n")
    assert "the rest waits" in half.stderr and half.stdout == ""
    assert "\x1b" not in half.output and f"{ANA} asked: weir" in half.stderr
    assert "nothing" in run("golden", "list").stdout
    done = run("golden", "review", file, "--name", "birds", answers="s\ny\n")
    assert "2 judgements of 2 questions confirmed, 1 pending" in done.stdout and "birds@1: 2 questions" in done.stdout
    # the same again is the same version, and what was decided is not asked again
    again = run("golden", "suggest", file, "--name", "birds", "--json")
    assert json.loads(again.stdout)["pending"] == 1
    assert "birds@1" in run("golden", "review", file, "--name", "birds", "--no-ask").stdout
    lines = review.read(file)
    review.write(file, [{**each, "relevant": [{**j, "confirmed": True} for j in each["relevant"]]} for each in lines])
    assert "birds@2: 4 questions" in run("golden", "review", file, "--name", "birds").stdout
    assert "every judgement holds" in run("golden", "check", "birds").stdout
    assert "0 judgements to confirm" in run("golden", "suggest", tmp_path / "new.jsonl", "--name", "birds").stdout
    assert run("golden", "import", file, "--name", "birds", status=2)


def test_what_was_erased_or_hidden_since_is_not_brought_back(
    world: World, traced: Searcher, run: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "s.jsonl"
    for query in ("heron nests", "barn"):
        says(world, asks(traced, world, query), helpful=True, used=(1,))
    run("golden", "suggest", file, "--name", "birds")
    heron, owl = (fetch(world, "SELECT id FROM documents WHERE external_id = %s", name)[0][0]
                  for name in ("heron.md", "owl.md"))  # fmt: skip
    erase(world.store, world.blobs, world.tenant_id, heron, by="service:test")
    done = run("golden", "review", file, "--name", "birds", answers="y\ny\n")
    assert "left out: heron.md" in done.stdout and "birds@1: 1 questions" in done.stdout
    with writing(world.store) as conn:
        assert traces(conn, heron, HERON) == {}
        documents.change_labels(conn, world.tenant_id, owl, Labels((BEN,)))
    assert "left out: owl.md" in run("golden", "review", file, "--name", "others").stdout
    assert "others@" not in run("golden", "list").stdout


def test_a_card_shows_who_asked_what_and_where_it_stands(run: Callable[..., Any], tmp_path: Path) -> None:
    quoted = {"document": "heron.md", "quote": "The \x1b[2Jheron", "heading": ["Birds", "Heron"], "grade": 2}
    review.write(tmp_path / "s.jsonl", [line(relevant=[{**quoted, "suggested": "was used", "confirmed": None}])])
    card = run("golden", "review", tmp_path / "s.jsonl", answers="q\n").stderr
    for shown in (f"{ANA} asked: heron?", "heron.md > Birds > Heron", "  | The [2Jheron", "grade 2; was used"):
        assert shown in card
    assert "\x1b" not in card


def test_where_nothing_was_said_nothing_is_asked(world: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    assert "0 questions, 0 judgements to confirm" in run("golden", "suggest", file, "--name", "birds").stdout
    assert "0 judgements of 0 questions" in run("golden", "review", file, "--name", "birds").stdout
    assert "nothing" in run("golden", "list").stdout


def test_questions_are_kept_from_when_it_is_turned_on(world: World, run: Callable[..., Any]) -> None:
    assert "off" in run("traces", "show").stdout
    assert "5.0% of the questions are kept for 7 days" in run("traces", "on", "--days", "7").stdout
    assert json.loads(run("traces", "show", "--json").stdout)["tracing"] == {
        "rate": 0.05, "days": 7, "feedback_days": 365}  # fmt: skip
    run("traces", "off")
    assert "off" in run("traces", "show").stdout
    assert run("traces", "forget", status=2)
    assert run("traces", "forget", "--all").stdout == "0 questions forgotten\n"
    world.add("heron.md", HERON)
    request_id = json.loads(run("search", "heron", "--as", ANA, "--json").stdout)["request_id"]
    assert run("feedback", request_id, "--as", ANA, "--helpful", "--used", "1", "--query", "heron").stdout == "kept\n"
    assert run("feedback", request_id, "--as", BEN, "--helpful", status=2)
    assert run("feedback", request_id, "--as", ANA, status=2)
    assert "1 with feedback" in run("traces", "show").stdout
