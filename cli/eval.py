"""`citadel eval`: measure the search against golden sets."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
from ir_measures import Measure

import retrieval
from cli.golden import stored_golden
from cli.legs import legs_command
from cli.options import as_json, pass_settings, show
from cli.runs import compare_command, gate_command, list_command, report_command
from cli.scratch import ChunkSize, bar, chunk_options, follow, scratch_settings, standing
from cli.scratches import scratch_group
from cli.stack import open_searcher, open_trained, opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid
from core.records import FusionMethod, Mode, Principal, Profile, SearchRequest
from eval import page
from eval.asking import Setting, replaying
from eval.asking import asking as asking_by
from eval.collection import SUBJECT, Part, is_collection, read_collection
from eval.golden import GoldenQuery, GoldenSet, read_golden
from eval.judged import judge
from eval.kept import Kept, KeptEmbedder, kept_key, load, save
from eval.measures import parse_measures
from eval.record import Plan, record
from eval.report import RunReport, to_dict, to_text
from eval.run import Answered
from eval.scratch import index_state, visible_places
from models.embedder import Embedder, open_embedder
from retrieval.fuse import fusion_from
from retrieval.rerank import NONE, TRAINED, chosen, late_interaction
from store.pool import Store, reading_tenant
from store.profiles import ways_of
from store.runs import StoredRun

FOLDER = "legs"  # in the state folder: what legs gave, by everything that it follows from


@click.group("eval")
def eval_group() -> None:
    """Measure the search against golden sets."""


for command in (legs_command, compare_command, gate_command, list_command, report_command, scratch_group):
    eval_group.add_command(command)


def _cutoffs(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 and int(part) > 0 for part in parts):
        raise click.BadParameter(f"write cutoffs from 1 to 9999 with commas between, such as 1,3,5,10; not {value!r}")
    return tuple(sorted({int(part) for part in parts}))


@eval_group.command("run")
@click.argument("golden")
@click.option("--name", help="Of the run, for compare and gate.  [default: the golden set's]")
@click.option("--k", "cutoffs", default="1,3,5,10", show_default=True, callback=_cutoffs, metavar="K,K,…",
              help="Cutoffs: how many passages of an answer count.")  # fmt: skip
@click.option("--measures", default="", metavar="M,M,…",
              help="More of them: P, R, nDCG, RR, AP, Success, Bpref, with @K or without.")  # fmt: skip
@click.option("--mode", type=click.Choice(["hybrid", "dense", "lexical"]), default="hybrid", show_default=True)
@click.option("--fusion", type=click.Choice(["convex", "rrf"]), help="[default: the tenant's]")
@click.option("--dense-weight", type=click.FloatRange(0, 1), help="Of the convex fusion.  [default: the tenant's]")
@click.option("--rerank", metavar="NAME", help="A reranker, or none.  [default: the search's own]")
@click.option("--as", "subject", metavar="LABEL", help="Who asks the questions that name nobody.")
@click.option("--part", type=click.Choice(["test", "tune", "held"]), default="test", show_default=True,
              help="Of a collection: all its test questions, or one of two parts that do not meet.")  # fmt: skip
@chunk_options
@click.option("--tenant", help="The tenant to search; it holds the documents.  [default: the one in CITADEL_TENANT, "
              "or a collection's own]")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 16), default=os.cpu_count() or 2, show_default="processors",
              help="Questions asked at once. Latency is that of a search beside so many others.")  # fmt: skip
@click.option("--again", is_flag=True, help="Ask every leg again, though what they gave is kept.")
@click.option("--html", "html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write it for a pull request.")
@click.option("--progress/--no-progress", default=None, help="A bar on stderr.  [default: on a terminal]")
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
    progress: bool | None,
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
    shown = sys.stderr.isatty() if progress is None else progress
    options = SearchRequest("", fusion=fusion_from(fusion, dense_weight), rerank=rerank)
    asking = _Asking(name, cutoffs, parse_measures(measures), mode, options, workers, again, shown, html, markdown)
    folder = Path(golden)
    if is_collection(folder) and tenant is None:
        size = ChunkSize(chunk_tokens, chunk_chars)
        run, report = _run_collection(settings, folder, part, subject, size, asking)
    else:
        chosen = replace(settings, tenant=tenant or settings.tenant)
        questions = read_golden(folder, subject) if folder.exists() else None
        run, report = _run(chosen, chosen, questions or _stored(chosen, golden), asking)
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


def _stored(settings: Settings, name: str) -> GoldenSet:
    """The set of that name in the store. Raises NotFound."""
    with opened_store(settings) as store:
        return stored_golden(store, settings, name)


def _run(
    keeping: Settings, searched: Settings, questions: GoldenSet, asking: _Asking, ranked_for: str | None = None
) -> tuple[StoredRun, RunReport]:
    """`ranked_for`: who asks the questions of a collection, by whose documents or passages it is measured."""
    if not questions.queries:
        raise Invalid("the golden set has no question left that judges anything")
    engine = {"model": searched.model, "lexical": searched.lexical, "k1": searched.bm25_k1, "b": searched.bm25_b,
              "reranker": searched.reranker}  # fmt: skip
    with opened_store(searched) as store:
        state = index_state(store, tenant_of(store, searched), {query.subject for query in questions.queries})
    place = searched.state / FOLDER / f"{kept_key({**state, **engine}, Path(str(retrieval.__file__)).parent)}.npz"
    kept = Kept() if asking.again else load(place)
    with ExitStack() as opened:
        step = opened.enter_context(bar("questions", asking.progress))
        store, asker = _answering(opened, searched, kept, questions, asking)
        tenant_id = tenant_of(store, searched)
        judged = ranked_for and judge(questions, visible_places(store, Principal(tenant_id, ranked_for)))
        name = asking.name or questions.name.removesuffix(".jsonl")
        plan = Plan(tenant_of(store, keeping), tenant_id, name, questions, asking.cutoffs, asking.measures, asking.mode,
                    asking.options, judged or None, asking.workers)  # fmt: skip
        try:
            run, report = record(store, plan, engine, asker, lambda done: step(done, len(questions.queries)))
        finally:
            if kept.changed:
                save(place, kept)
        page.write(store, plan.owner, run, asking.html, asking.markdown)
    return run, report


def _answering(
    opened: ExitStack, settings: Settings, kept: Kept, questions: GoldenSet, asking: _Asking
) -> tuple[Store, Callable[[Setting], Callable[[GoldenQuery], Answered]]]:
    """By what is kept where that is all there is to ask, else by a searcher, which is opened only then."""
    request = SearchRequest("", mode=asking.mode, rerank=asking.options.rerank)
    rerankers = late_interaction()
    known = request.rerank in (None, NONE, TRAINED, *rerankers)
    if known and all(kept.has(asking.mode, query.subject, query.query) for query in questions.queries):
        store = opened.enter_context(opened_store(settings))
        with reading_tenant(store, tenant_of(store, settings)) as conn:
            ways = ways_of(conn, tenant_of(store, settings))
        threads = settings.model_threads or None
        opening = partial(open_embedder, settings.model, settings.model_cache(), threads,
                          ways.profile.precision)  # fmt: skip
        embedder = KeptEmbedder(ways.profile, kept, opening)
        own = open_trained(settings).own(ways.reranker, ways.profile.id)
        return store, partial(replaying, store, kept, embedder, chosen(rerankers, request, own), questions)
    if asking.follow:
        follow(settings)
    searcher = opened.enter_context(open_searcher(settings, partial(_kept_embedder, kept)))
    return searcher.store, partial(asking_by, searcher, kept)


def _kept_embedder(kept: Kept, profile: Profile, open_it: Callable[[], Embedder]) -> Embedder:
    return KeptEmbedder(profile, kept, open_it)


def exit_status(report: RunReport) -> int:
    """1 when a forbidden document came back, so that CI stops."""
    return 1 if report.forbidden_returned else 0
