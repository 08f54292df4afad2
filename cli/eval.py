"""`citadel eval`: measure the search against golden sets."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click
from ir_measures import Measure

from cli.golden import questions_of
from cli.kept import answering, place_of
from cli.options import (
    LazyGroup,
    as_json,
    asker_option,
    cutoffs_of,
    html_option,
    markdown_option,
    pass_settings,
    progress_option,
    show,
)
from cli.scratch import ChunkSize, bar, chunk_options, scratch_settings, standing
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid
from core.records import FusionMethod, Mode, Principal, SearchRequest
from eval import page
from eval.collection import SUBJECT, Part, is_collection, read_collection
from eval.golden import GoldenSet
from eval.judged import judge
from eval.kept import Kept, behind_of, engine_of, load, save
from eval.measures import parse_measures
from eval.record import Plan, record
from eval.report import RunReport, to_dict, to_text
from eval.scratch import visible_places
from retrieval.fuse import fusion_from
from store.runs import StoredRun

COMMANDS = {
    "legs": "cli.legs:legs_command",
    "compare": "cli.runs:compare_command",
    "gate": "cli.runs:gate_command",
    "list": "cli.runs:list_command",
    "report": "cli.runs:report_command",
    "scratch": "cli.scratches:scratch_group",
    "answers": "cli.answers:answers_command",
    "schedule": "cli.schedules:schedule_group",
}


@click.group("eval", cls=LazyGroup, elsewhere=COMMANDS)
def eval_group() -> None:
    """Measure the search against golden sets."""


@eval_group.command("run")
@click.argument("golden")
@click.option("--name", help="Of the run, for compare and gate.  [default: the golden set's]")
@click.option("--k", "cutoffs", default="1,3,5,10", show_default=True, callback=cutoffs_of, metavar="K,K,…",
              help="Cutoffs: how many passages of an answer count.")  # fmt: skip
@click.option("--measures", default="", metavar="M,M,…",
              help="More of them: P, R, nDCG, RR, AP, Success, Bpref, with @K or without.")  # fmt: skip
@click.option("--mode", type=click.Choice(["hybrid", "dense", "lexical"]), default="hybrid", show_default=True)
@click.option("--fusion", type=click.Choice(["convex", "rrf"]), help="[default: the tenant's]")
@click.option("--dense-weight", type=click.FloatRange(0, 1), help="Of the convex fusion.  [default: the tenant's]")
@click.option("--rerank", metavar="NAME", help="A reranker, or none.  [default: the search's own]")
@asker_option
@click.option("--part", type=click.Choice(["test", "tune", "held"]), default="test", show_default=True,
              help="Of a collection: all its test questions, or one of two parts that do not meet.")  # fmt: skip
@chunk_options
@click.option("--tenant", help="The tenant to search; it holds the documents.  [default: the one in CITADEL_TENANT, "
              "or a collection's own]")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 16), default=os.cpu_count() or 2, show_default="processors",
              help="Questions asked at once. Latency is that of a search beside so many others.")  # fmt: skip
@click.option("--again", is_flag=True, help="Ask every leg again, though what they gave is kept.")
@html_option
@markdown_option
@progress_option
@as_json
@pass_settings
@click.pass_context
def run_command(
    ctx: click.Context,
    settings: Settings,
    golden: str,
    name: str | None,
    cutoffs: tuple[int, ...],
    measures: str,
    mode: Mode,
    fusion: FusionMethod | None,
    dense_weight: float | None,
    rerank: str | None,
    subject: str | None,
    part: Part,
    chunk_tokens: int | None,
    chunk_chars: int | None,
    tenant: str | None,
    workers: int,
    again: bool,
    html: Path | None,
    markdown: Path | None,
    progress: bool,
    as_json: bool,
) -> None:
    """Ask every question of GOLDEN as the principal that it names; keep the run, and print what it measured.

    GOLDEN is a file of JSON lines about documents that are indexed already, a BEIR or TREC folder of questions, a set
    that `citadel golden import` took in (NAME or NAME@VERSION), or the folder of a collection that brings its documents
    (BEIR, Chroma's questions, contextual code, filings). Those are indexed once, into a tenant of their own, on the
    stack that runs here or else on a Postgres that is started for this command.

    What the legs gave is kept: another fusion or reranker asks nothing again. A run that was interrupted goes on where
    it was. Ends with status 1 when a forbidden document came back.

    \b
    A line of GOLDEN:
      {"query": "How long is parental leave?", "as": "user:ana@acme.example",
       "relevant": [{"document": "hr/leave.md", "grade": 3}],
       "forbidden": ["board/minutes.pdf"], "tags": ["hr"]}

    \b
    Examples:
      citadel eval run examples/acme/golden.jsonl --name main
      citadel eval run golden.jsonl --k 5,10 --mode dense --json | jq .measures
      citadel eval run scifact/ --measures AP@100,Bpref --html scifact.html
      citadel eval run chroma-chunking/ --chunk-chars 800 --dense-weight 0.3
    """
    options = SearchRequest("", fusion=fusion_from(fusion, dense_weight), rerank=rerank)
    asking = _Asking(name, cutoffs, parse_measures(measures), mode, options, workers, again, progress, html, markdown)
    folder = Path(golden)
    if is_collection(folder) and tenant is None:
        size = ChunkSize(chunk_tokens, chunk_chars)
        run, report = _run_collection(settings, folder, part, subject, size, asking)
    else:
        chosen = replace(settings, tenant=tenant or settings.tenant)
        run, report = _run(chosen, chosen, questions_of(chosen, golden, subject), asking)
    told = {**to_dict(report), "run": {"id": str(run.id), "name": run.name, "config": run.config}}
    show(told, as_json, f"{to_text(report)}\n\nkept as {run.name} ({str(run.id)[:8]})")
    ctx.exit(exit_status(report))


@dataclass(frozen=True, slots=True)
class _Asking:
    """How the questions are asked, and what is made of it."""

    name: str | None
    cutoffs: tuple[int, ...]
    measures: tuple[Measure, ...]
    mode: Mode
    options: SearchRequest
    workers: int
    again: bool
    progress: bool
    html: Path | None
    markdown: Path | None
    follow: bool = False  # a scratch tenant's lexical replica is brought up to now before it is asked


def _run_collection(
    settings: Settings, folder: Path, part: Part, subject: str | None, size: ChunkSize, asking: _Asking
) -> tuple[StoredRun, RunReport]:
    collection = read_collection(folder, part, subject)
    golden = replace(collection.golden, name=f"{collection.name}-{part}")
    with standing(settings) as running:
        scratch = scratch_settings(running, collection, size, asking.progress)
        followed = replace(asking, follow=running.lexical == "fast")
        return _run(running, scratch, golden, followed, subject or SUBJECT)


def _run(
    keeping: Settings, searched: Settings, questions: GoldenSet, asking: _Asking, ranked_for: str | None = None
) -> tuple[StoredRun, RunReport]:
    """`ranked_for`: who asks the questions of a collection, by whose documents or passages it is measured."""
    if not questions.queries:
        raise Invalid("the golden set has no question left that judges anything")
    with opened_store(searched) as store:
        place = place_of(searched, store, {query.subject for query in questions.queries})
    kept = Kept() if asking.again else load(place)
    with ExitStack() as opened:
        step = opened.enter_context(bar("questions", asking.progress))
        store, asker = answering(opened, searched, kept, questions, asking.mode, asking.options, asking.follow)
        tenant_id = tenant_of(store, searched)
        judged = ranked_for and judge(questions, visible_places(store, Principal(tenant_id, ranked_for)))
        name = asking.name or questions.name.removesuffix(".jsonl")
        plan = Plan(tenant_of(store, keeping), tenant_id, name, questions, asking.cutoffs, asking.measures, asking.mode,
                    asking.options, judged or None, asking.workers, searched.pool)  # fmt: skip
        try:
            engine, asked = {**engine_of(searched), **behind_of(searched)}, len(questions.queries)
            run, report = record(store, plan, engine, asker, lambda done: step(done, asked))
        finally:
            if kept.changed:
                save(place, kept)
        page.write(store, plan.owner, run, asking.html, asking.markdown)
    return run, report


def exit_status(report: RunReport) -> int:
    """1 when a forbidden document came back, so that CI stops."""
    return 1 if report.forbidden_returned else 0
