"""Kept runs: asked as each principal, resumed, replayed behind kept legs, compared, gated, reached by an erasure."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.errors import Invalid, NotFound, StoreUnavailable
from core.records import Fusion, Mode, SearchRequest
from eval.asking import Setting, asking, replaying
from eval.check import check
from eval.gate import Limits, gate
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.kept import Kept, load, save
from eval.measures import parse_measures
from eval.page import run_page, to_html, to_markdown
from eval.pair import compare, side
from eval.pool import pool
from eval.record import Plan, keep_golden, record
from eval.report import RunReport
from eval.run import Answered
from ingest.erase import erase
from retrieval.rerank import chosen, late_interaction
from retrieval.search import Searcher
from store import golden as sets
from store import runs
from store.pool import reading_tenant, writing
from store.runs import StoredRun
from store.traces import traces
from tests.conftest import World
from tests.integration.conftest import ANA, BEN
from tests.integration.rows import fetch

SECRET = "The takeover of Perch closes in May for nine million."
LONG = " ".join(f"Paragraph {n} tells of gardens and of bees." for n in range(120))


@pytest.fixture
def filled(world: World) -> World:
    """Ana is in finance, both are staff; one document is secret, one is long, three are alike."""
    world.groups({"group:staff": [ANA, BEN], "group:finance": [ANA]})
    world.add("travel.md", "Flights are booked with the travel desk. Hotels too.", ("group:staff",))
    world.add("leave.md", "Parental leave is 26 weeks. Ask the people team about leave.", ("group:staff",))
    world.add("board.md", SECRET, ("group:finance",))
    world.add("garden.md", LONG, ("public",))
    return world


def questions(name: str = "set") -> GoldenSet:
    leave = Judgement("leave.md", 3, quote="Parental leave is 26 weeks.")
    return GoldenSet(name, "", (
        GoldenQuery("q1", "How long is parental leave?", ANA, (leave,), (), ("hr",)),
        GoldenQuery("q2", "parental leave weeks", BEN, (leave,), (), ("hr",)),
        GoldenQuery("q3", "Who books flights and hotels?", BEN, (Judgement("travel.md"),), ("board.md",)),
        GoldenQuery("q4", "When does the takeover close?", BEN, (), ("board.md",), ("denied",)),
        GoldenQuery("q5", "When does the takeover of Perch close?", ANA, (Judgement("board.md", quote=SECRET),)),
        GoldenQuery("q6", "paragraph of bees and gardens", ANA, (Judgement("garden.md"),)),
    ))  # fmt: skip


def plan(world: World, name: str = "main", golden: GoldenSet | None = None, **more: Any) -> Plan:
    return Plan(
        world.tenant_id, world.tenant_id, name, golden or questions(), (1, 3), parse_measures("AP,Bpref"), **more
    )


def recorded(world: World, searcher: Searcher, kept: Kept, **more: Any) -> tuple[StoredRun, RunReport]:
    return record(world.store, plan(world, **more), {"lexical": "rank-bm25"}, partial(asking, searcher, kept))


def test_a_run_is_kept_with_all_that_it_measured(filled: World, searcher: Searcher) -> None:
    run, report = recorded(filled, searcher, Kept())
    assert run.finished_at is not None and run.summary is not None
    with writing(filled.store) as conn:
        values, answers = runs.values(conn, run.id), runs.answers(conn, run.id)
        passages, stages = runs.passages(conn, run.id), runs.stages(conn, run.id)
    assert values == {query.id: query.values for query in report.queries if query.values}
    assert set(answers) == {"q1", "q2", "q3", "q4", "q5", "q6"} and set(values) == set(answers) - {"q4"}
    assert run.summary["measures"]["AP"] == report.overall.measures["AP"]
    assert {p.external_id for p in passages if p.query_id == "q1" and p.rank == 1} == {"leave.md"}
    (of_q1,) = [stage for stage in stages if stage.query_id == "q1"]
    assert (of_q1.external_id, of_q1.lexical, of_q1.answer) == ("leave.md", 1, 1)
    for key in ("fusion", "profile", "code", "position", "grants", "golden", "digest", "version", "rerank"):
        assert key in run.config


def test_nobody_is_answered_with_what_he_may_not_see(filled: World, searcher: Searcher) -> None:
    run, report = recorded(filled, searcher, Kept())
    assert report.forbidden_judged == 2 and report.forbidden_returned == ()
    with writing(filled.store) as conn:
        given = {p.query_id for p in runs.passages(conn, run.id) if p.external_id == "board.md"}
    assert "q5" in given and given <= {"q1", "q5", "q6"}  # Ana's questions alone


def test_spans_slices_and_tokens(filled: World, searcher: Searcher) -> None:
    with writing(filled.store) as conn:
        conn.execute("UPDATE versions SET language = 'en'")
    _, report = recorded(filled, searcher, Kept())
    assert report.spans.queries == 3  # q1, q2 and q5 quote; q3 and q6 name documents
    of_q5 = next(query for query in report.queries if query.id == "q5")
    assert (of_q5.values["SpanP@1"], of_q5.values["SpanR@1"], of_q5.values["SpanIoU@1"]) == (1.0, 1.0, 1.0)
    assert "SpanP@1" not in next(query for query in report.queries if query.id == "q6").values
    assert report.slices["tag:hr"].queries == 2 and report.slices[f"as:{BEN}"].queries == 2
    assert report.slices["source:api"].queries == 5 and report.slices["format:text/plain"].queries == 5
    assert report.slices["language:en"].queries == 5
    shares = [name for name in report.slices if name.startswith("visible:")]
    assert shares == ["visible:≤ 100 %"] and report.tokens > 0


def test_what_was_interrupted_goes_on(filled: World, searcher: Searcher) -> None:
    asked: list[str] = []

    def breaking(after: int) -> Callable[[Setting], Callable[[GoldenQuery], Answered]]:
        def asker(setting: Setting) -> Callable[[GoldenQuery], Answered]:
            real = asking(searcher, Kept(), setting)

            def ask(query: GoldenQuery) -> Answered:
                if len(asked) == after:
                    raise StoreUnavailable("Postgres did not answer")
                asked.append(query.id)
                return real(query)

            return ask

        return asker

    one = plan(filled, workers=1)
    with pytest.raises(StoreUnavailable):
        record(filled.store, one, {}, breaking(2))
    assert asked == ["q1", "q2"]
    with writing(filled.store) as conn, pytest.raises(NotFound):
        runs.named(conn, filled.tenant_id, "main")
    run, report = record(filled.store, one, {}, breaking(99))
    assert asked == ["q1", "q2", "q3", "q4", "q5", "q6"]  # each once
    whole, again = record(filled.store, replace(one, name="whole"), {}, breaking(99))
    assert {q.id: q.values for q in report.queries} == {q.id: q.values for q in again.queries}
    assert run.id != whole.id and len(fetch(filled, "SELECT id FROM eval_runs")) == 2


WAYS: list[tuple[Mode, str | None, Fusion]] = [
    ("hybrid", "late", Fusion("rrf")), ("hybrid", "late", Fusion("convex", 0.2)), ("hybrid", "none", Fusion()),
    ("hybrid", None, Fusion("convex", 0.9)), ("dense", None, Fusion()), ("lexical", "late", Fusion()),
]  # fmt: skip


def test_a_replay_is_the_search(filled: World, searcher: Searcher) -> None:
    nothing: dict[str, Any] = {query.id: () for query in questions().queries}
    for (mode, rerank, fusion), as_ranked in product(WAYS, (False, True)):
        request = SearchRequest("", top_k=15, mode=mode, rerank=rerank, fusion=fusion, as_ranked=as_ranked)
        setting, kept = Setting(filled.tenant_id, mode, request, fusion, 3, nothing), Kept()
        answers = [asking(searcher, kept, setting)(query) for query in questions().queries]
        boxed = chosen(late_interaction(), request)
        replay = replaying(filled.store, kept, filled.embedder, boxed, questions(), setting)
        for answered in answers:
            again = replay(answered.query)
            assert again.passages == answered.passages and again.tokens == answered.tokens
            assert again.scores == pytest.approx(answered.scores)
            assert again.ms is None and answered.ms is not None
        assert any(len(answered.passages) > 2 for answered in answers)


def test_what_is_kept_shows_nothing_after_a_grant_is_gone(filled: World, searcher: Searcher) -> None:
    """Kept legs name chunks; whether somebody may see them is asked of the database."""
    kept, request = Kept(), SearchRequest("", top_k=10)
    setting = Setting(filled.tenant_id, "hybrid", request, Fusion(), 3, {query.id: () for query in questions().queries})
    takeover = questions().queries[4]
    asked = asking(searcher, kept, setting)
    assert "board.md" in {c.external_id for c in asked(takeover).passages}
    filled.groups({"group:staff": [ANA, BEN]})
    only = replace(questions(), queries=(takeover,))
    replay = replaying(filled.store, kept, filled.embedder, chosen(late_interaction(), request), only, setting)
    assert {c.external_id for c in replay(takeover).passages} <= {"travel.md", "leave.md", "garden.md"}
    assert "board.md" not in {c.external_id for c in asked(takeover).passages}


def test_the_file_of_what_is_kept(filled: World, searcher: Searcher, tmp_path: Path) -> None:
    kept = Kept()
    recorded(filled, searcher, kept)
    save(tmp_path / "legs" / "a.npz", kept)
    again = load(tmp_path / "legs" / "a.npz")
    assert again.legs == kept.legs and again.counts == kept.counts and not again.changed
    assert (tmp_path / "legs" / "a.npz").stat().st_mode & 0o077 == 0
    assert load(tmp_path / "absent.npz").legs == {}


def test_two_runs_side_by_side_and_through_the_gate(filled: World, searcher: Searcher) -> None:
    kept = Kept()
    recorded(filled, searcher, kept)
    recorded(filled, searcher, kept, name="lexical", mode="lexical")
    one, other = (side(filled.store, filled.tenant_id, name) for name in ("main", "lexical"))
    found = compare(one, other, "nDCG@3")
    assert found.questions == 5 and found.changed["mode"] == ("hybrid", "lexical")
    assert {row.name for row in found.rows} >= {"P@1", "nDCG@3", "AP", "Bpref"}
    for row in found.rows:
        assert row.after - row.before == pytest.approx(row.change.mean) and row.wins + row.losses + row.ties == 5
    again = compare(one, one, "nDCG@3")
    assert again.moved == () and all(row.p == 1.0 for row in again.rows)
    with pytest.raises(Invalid, match="too few"):
        gate(one.values, other.values, 0, Limits({"nDCG@3": 0.01}))
    with pytest.raises(Invalid, match="choose from"):
        compare(one, other, "nDCG@99")


def test_runs_of_other_questions_do_not_compare(filled: World, searcher: Searcher) -> None:
    fewer = replace(questions(), queries=questions().queries[:3])
    recorded(filled, searcher, Kept())
    recorded(filled, searcher, Kept(), name="fewer", golden=fewer)
    with pytest.raises(Invalid, match="set@1.*set@2"):
        compare(*(side(filled.store, filled.tenant_id, name) for name in ("main", "fewer")))


def test_golden_sets_are_versions_of_a_name(filled: World, neighbour: World) -> None:
    first = keep_golden(filled.store, filled.tenant_id, questions())
    same = keep_golden(filled.store, filled.tenant_id, questions())
    second = keep_golden(filled.store, filled.tenant_id, replace(questions(), queries=questions().queries[:2]))
    assert (first.version, same, second.version, second.questions) == (1, first, 2, 2)
    with writing(filled.store) as conn:
        assert sets.named(conn, filled.tenant_id, "set") == second
        assert sets.named(conn, filled.tenant_id, "set", 1) == first
        with pytest.raises(NotFound, match="golden import"):
            sets.named(conn, neighbour.tenant_id, "set")


def test_no_reader_sees_any_of_it(filled: World, searcher: Searcher) -> None:
    recorded(filled, searcher, Kept())
    with reading_tenant(filled.store, filled.tenant_id) as conn:
        for table in ("golden_sets", "golden_queries", "eval_runs", "eval_answers", "eval_passages", "eval_stages"):
            (allowed,) = conn.execute("SELECT has_table_privilege(%s, 'SELECT')", (table,)).fetchone() or (True,)
            assert not allowed


def test_an_erasure_reaches_runs_and_judgements(filled: World, searcher: Searcher) -> None:
    recorded(filled, searcher, Kept())
    (document_id,) = fetch(filled, "SELECT id FROM documents WHERE external_id = 'board.md'")[0]
    erase(filled.store, filled.blobs, filled.tenant_id, document_id, by="service:test")
    with writing(filled.store) as conn:
        assert not {name for name in traces(conn, document_id, SECRET) if name.startswith(("eval", "golden"))}
        kept = sets.named(conn, filled.tenant_id, "set")
        lines = sets.lines(conn, kept.id)
    assert not [line for line in lines if "board.md" in json.dumps(line)]
    again = side(filled.store, filled.tenant_id, "main")
    assert set(again.values) == {"q1", "q2", "q3", "q5", "q6"}  # figures stay
    assert {query.id for query in again.golden.queries} == {"q1", "q2", "q3", "q6"}
    assert "takeover" not in to_html(run_page(filled.store, filled.tenant_id, again))


# --- check --------------------------------------------------------------------------------------------------------


def test_a_true_set_has_no_findings(filled: World) -> None:
    assert check(filled.store, filled.tenant_id, questions()) == []


def test_what_is_wrong_with_a_judgement(filled: World) -> None:
    wrong = [
        ((Judgement("gone.md"),), (), ANA, "dead", "no indexed document"),
        ((Judgement("leave.md", quote="52 weeks"),), (), ANA, "dead", "does not stand there"),
        ((Judgement("leave.md", span=(0, 999)),), (), ANA, "dead", "span ends at 999"),
        ((Judgement("leave.md", page=3),), (), ANA, "dead", "no page 3"),
        ((Judgement("leave.md", quote="leave"),), (), ANA, "ambiguous", "2 times"),
        ((Judgement("board.md"),), (), BEN, "leaking", "may not see it"),
        ((), ("board.md",), ANA, "leaking", "who may see it"),
        ((), ("gone.md",), BEN, "dead", "no such document"),
    ]
    for relevant, forbidden, who, kind, told in wrong:
        query = GoldenQuery("x", "?", who, relevant, forbidden)
        (finding,) = check(filled.store, filled.tenant_id, GoldenSet("g", "", (query,)))
        assert finding.kind == kind and told in finding.problem and finding.query_id == "x"


def test_one_name_in_two_sources_is_ambiguous(filled: World) -> None:
    filled.add("leave.md", "Another text about leave.", ("public",), source="other")
    found = check(filled.store, filled.tenant_id, questions())
    assert {(finding.kind, finding.document) for finding in found} == {("ambiguous", "leave.md")}


# --- reports ------------------------------------------------------------------------------------------------------


def test_a_report_says_what_the_asker_may_read_and_no_more(filled: World, searcher: Searcher) -> None:
    wrong = GoldenSet("wrong", "", (
        GoldenQuery("mine", "flights", ANA, (Judgement("board.md", quote=SECRET),)),
        GoldenQuery("his", "flights hotels", BEN, (Judgement("board.md", quote=SECRET),)),
    ))  # fmt: skip
    recorded(filled, searcher, Kept(), name="wrong", golden=wrong)
    shown = run_page(filled.store, filled.tenant_id, side(filled.store, filled.tenant_id, "wrong"))
    (worst,) = [section for section in shown.sections if section.title == "Worst questions"]
    by_asker = {("mine" if "mine" in b.title else "his"): b for b in worst.blocks}  # type: ignore[union-attr]
    assert "his" in by_asker and SECRET not in str(by_asker["his"])
    assert all(SECRET in str(block) for asker, block in by_asker.items() if asker == "mine")
    for told in (to_html(shown), to_markdown(shown)):
        assert "nDCG@3" in told and "the asker may see" in told and "p99" in told


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel …` on the test's database, which stands for a running stack."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state"),
           "CITADEL_LEXICAL": "rank-bm25"}  # fmt: skip
    return lambda *arguments: CliRunner().invoke(citadel, [str(a) for a in arguments], env=env, catch_exceptions=False)


def write_set(path: Path, numbers: int = 12) -> Path:
    lines = [
        {"id": f"q{n}", "query": f"How long is parental leave? {n}", "as": ANA, "relevant": [{"document": "leave.md"}],
         "forbidden": [], "tags": ["hr"]}
        for n in range(numbers)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_from_a_file_to_a_gate(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = write_set(tmp_path / "acme.jsonl")
    assert run("golden", "import", file).stdout == "acme@1: 12 questions\n"
    assert "every judgement holds" in run("golden", "check", "acme").stdout
    first = json.loads(run("eval", "run", "acme", "--name", "main", "--k", "1,10", "--json", "--no-progress").stdout)
    assert first["run"]["name"] == "main" and first["ms_p50"] is not None
    page = tmp_path / "run.html"
    second = run("eval", "run", file, "--name", "candidate", "--k", "1,10", "--dense-weight", "0.3", "--json", "--html",
                 page)  # fmt: skip
    assert json.loads(second.stdout)["ms_p50"] is None  # the legs were kept ones
    assert "<svg" in page.read_text()
    junit = tmp_path / "gate.xml"
    opened = run("eval", "gate", "--baseline", "main", "--junit", junit, "--json")
    assert opened.exit_code == 0 and json.loads(opened.stdout)["passed"] is True
    assert 'failures="0"' in junit.read_text()
    compared = run("eval", "compare", "main", "candidate", "--markdown", tmp_path / "c.md")
    assert "candidate against main, 12 questions" in compared.stdout and "differs: fusion" in compared.stdout
    assert "| nDCG@10 |" in (tmp_path / "c.md").read_text().replace("\\", "")
    listed = json.loads(run("eval", "list", "--json").stdout)["runs"]
    assert [each["name"] for each in listed] == ["candidate", "main"]
    assert run("golden", "list").stdout.splitlines()[1].split()[:3] == ["acme", "1", "12"]
    assert run("golden", "export", "acme@1", tmp_path / "beir", "--form", "beir").exit_code == 0
    assert run("eval", "report", "main", "--markdown", tmp_path / "r.md").exit_code == 0


def test_a_worse_run_shuts_the_gate(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = write_set(tmp_path / "acme.jsonl")
    run("eval", "run", file, "--name", "main")
    filled.add("leave.md", "Nothing about it any more.", ("group:staff",))
    filled.add("noise.md", "How long is parental leave? Parental leave is long.", ("group:staff",))
    for n in range(12):
        filled.add(f"noise{n}.md", f"How long is parental leave? {n} {n} {n}", ("group:staff",))
    run("eval", "run", file, "--name", "worse")
    shut = run("eval", "gate", "worse", "--baseline", "main")
    assert shut.exit_code == 1 and "the gate is shut" in shut.stdout and "FAIL  nDCG@10" in shut.stdout
    assert run("golden", "check", file).exit_code == 0
    assert run("eval", "gate", "absent", "--baseline", "main").exit_code == 2


def test_check_ends_with_one_when_a_judgement_fails(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "g.jsonl"
    file.write_text(json.dumps({"query": "?", "as": BEN, "relevant": [{"document": "board.md"}]}))
    done = run("golden", "check", file)
    assert done.exit_code == 1 and "leaking" in done.stdout
    assert json.loads(run("golden", "check", file, "--json").stdout)["counts"] == {"leaking": 1}


# --- the pool -----------------------------------------------------------------------------------------------------


def test_a_pool_is_what_runs_found_and_nobody_judged(filled: World, searcher: Searcher) -> None:
    kept = Kept()
    recorded(filled, searcher, kept)
    recorded(filled, searcher, kept, name="words", mode="lexical")
    sides = [side(filled.store, filled.tenant_id, name) for name in ("main", "words")]
    lines = {line["query"]: line for line in pool(filled.store, sides, 3)}
    with writing(filled.store) as conn:
        passages = [runs.passages(conn, each.run.id) for each in sides]
    for query in questions().queries:
        expected: dict[str, list[str]] = {}
        for each, of in zip(sides, passages, strict=True):
            for p in (p for p in of if p.query_id == query.id and p.rank <= 3):
                if p.external_id not in query.gains() and p.external_id not in query.forbidden:
                    told = expected.setdefault(p.external_id, [])
                    told += [] if any(each.run.name in t for t in told) else [f"{p.rank} in {each.run.name}"]
        found = lines.get(query.query, {"relevant": []})["relevant"]
        ranks = {document: f"rank {', '.join(told)}" for document, told in expected.items()}
        assert {j["document"]: j["suggested"] for j in found} == ranks
        assert all(j["confirmed"] is None and j["shown"] for j in found)
    every = [judgement["suggested"] for line in lines.values() for judgement in line["relevant"]]
    assert any("in main" in told and "in words" in told for told in every)
    fewer = recorded(filled, searcher, kept, name="fewer", golden=replace(questions(), queries=questions().queries[:3]))
    with pytest.raises(Invalid, match="the same questions"):
        pool(filled.store, [*sides, side(filled.store, filled.tenant_id, str(fewer[0].id))], 3)
    with pytest.raises(Invalid, match="one name"):
        pool(filled.store, [sides[0], sides[0]], 3)


def test_a_pool_shows_what_its_asker_may_read_now(filled: World, searcher: Searcher) -> None:
    bare = GoldenSet("bare", "", (GoldenQuery("q", "the takeover of Perch", ANA, (Judgement("leave.md"),)),))
    recorded(filled, searcher, Kept(), name="bare", golden=bare)
    runs_of = [side(filled.store, filled.tenant_id, "bare")]
    (line,) = pool(filled.store, runs_of, 10)
    assert SECRET in json.dumps(line)
    filled.groups({"group:staff": [ANA, BEN]})
    left = pool(filled.store, runs_of, 10)
    assert "board.md" not in json.dumps(left) and SECRET not in json.dumps(left)


def test_a_pool_by_the_command(filled: World, run: Callable[..., Any], tmp_path: Path) -> None:
    file, target = write_set(tmp_path / "acme.jsonl"), tmp_path / "unjudged.jsonl"
    run("eval", "run", file, "--name", "main", "--k", "10")
    told = json.loads(run("golden", "pool", target, "main", "--top", "10", "--json").stdout)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert told["questions"] == len(lines) == 12 and target.stat().st_mode & 0o077 == 0
    assert told["judgements"] == sum(len(line["relevant"]) for line in lines) > 12
    assert run("golden", "import", target).exit_code == 2  # suggestions are no judgements
    assert "there already" in run("golden", "pool", target, "main").output
    assert run("golden", "pool", tmp_path / "x.jsonl", "absent").exit_code == 2
