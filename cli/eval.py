"""`citadel eval`: measure the search against a golden set."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from cli.legs import legs_command
from cli.options import as_json, pass_settings, show
from cli.scratch import ChunkSize, bar, chunk_options, scratch_settings, standing
from cli.scratches import scratch_group
from cli.stack import open_searcher, tenant_of
from core.config import Settings
from core.records import FusionMethod, Mode, Principal, SearchRequest
from eval.collection import SUBJECT, Part, is_collection, read_collection
from eval.golden import GoldenSet, read_golden
from eval.judged import judge
from eval.report import RunReport, make_report, to_dict, to_text
from eval.run import Run, run_golden
from eval.scratch import visible_places
from retrieval.fuse import fusion_from
from retrieval.search import search


@click.group("eval")
def eval_group() -> None:
    """Measure the search against golden sets."""


eval_group.add_command(legs_command)
eval_group.add_command(scratch_group)


def _cutoffs(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 and int(part) > 0 for part in parts):
        raise click.BadParameter(f"write cutoffs from 1 to 9999 with commas between, such as 1,3,5,10; not {value!r}")
    return tuple(sorted({int(part) for part in parts}))


@eval_group.command("run")
@click.argument("golden", type=click.Path(exists=True, path_type=Path))
@click.option("--k", "cutoffs", default="1,3,5,10", show_default=True, callback=_cutoffs, metavar="K,K,…",
              help="Cutoffs: how many passages of an answer count.")  # fmt: skip
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
@click.option("--progress/--no-progress", default=None, help="A bar on stderr.  [default: on a terminal]")
@as_json
@pass_settings
@click.pass_context
def run_command(
    ctx: click.Context,
    settings: Settings,
    golden: Path,
    cutoffs: tuple[int, ...],
    mode: Mode,
    fusion: FusionMethod | None,
    dense_weight: float | None,
    rerank: str | None,
    subject: str | None,
    part: Part,
    chunk_tokens: int | None,
    chunk_chars: int | None,
    tenant: str | None,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Ask every question of GOLDEN as the principal that it names; print P, R, nDCG and RR at each cutoff.

    GOLDEN is a file of JSON lines about documents that are indexed already, or the folder of a collection that brings
    its documents: BEIR, Chroma's questions, contextual code, filings. They are indexed once, into a tenant of their
    own, on the stack that runs here or else on a Postgres that is started for this command. Ends with status 1 when a
    forbidden document came back.

    \b
    A line of GOLDEN:
      {"query": "How long is parental leave?", "as": "user:ana@acme.example",
       "relevant": [{"document": "hr/leave.md", "grade": 3}],
       "forbidden": ["board/minutes.pdf"], "tags": ["hr"]}

    \b
    Examples:
      citadel eval run examples/acme/golden.jsonl
      citadel eval run golden.jsonl --k 5,10 --mode dense --json | jq .measures
      citadel eval run scifact/
      citadel eval run chroma-chunking/ --chunk-chars 800 --dense-weight 0.3
      citadel eval run scifact/ --tenant research --as user:ana@acme.example
    """
    shown = sys.stderr.isatty() if progress is None else progress
    options = SearchRequest("", fusion=fusion_from(fusion, dense_weight), rerank=rerank)
    asking = _Asking(cutoffs, mode, options, shown)
    if is_collection(golden) and tenant is None:
        size = ChunkSize(chunk_tokens, chunk_chars)
        run = _run_collection(settings, golden, part, subject, size, asking)
    else:
        questions = read_golden(golden, subject)
        run = _run(replace(settings, tenant=tenant or settings.tenant), questions, asking)
    report = make_report(run)
    show(to_dict(report), as_json, to_text(report))
    ctx.exit(exit_status(report))


@dataclass(frozen=True, slots=True)
class _Asking:
    """How the questions are asked."""

    cutoffs: tuple[int, ...]
    mode: Mode
    options: SearchRequest
    progress: bool


def _run_collection(
    settings: Settings, folder: Path, part: Part, subject: str | None, size: ChunkSize, asking: _Asking
) -> Run:
    collection = read_collection(folder, part, subject)
    with standing(settings) as running:
        scratch = scratch_settings(running, collection, size, asking.progress)
        return _run(scratch, collection.golden, asking, subject or SUBJECT)


def _run(settings: Settings, questions: GoldenSet, asking: _Asking, ranked_for: str | None = None) -> Run:
    """`ranked_for`: who asks the questions of a collection, by whose documents or passages it is measured."""
    with open_searcher(settings) as searcher, bar("questions", asking.progress) as step:
        tenant_id = tenant_of(searcher.store, settings)
        total = len(questions.queries)
        judged = ranked_for and judge(questions, visible_places(searcher.store, Principal(tenant_id, ranked_for)))
        return run_golden(
            partial(search, searcher), tenant_id, questions, asking.cutoffs, asking.mode,
            lambda done: step(done, total), asking.options, judged or None,
        )  # fmt: skip


def exit_status(report: RunReport) -> int:
    """1 when a forbidden document came back, so that CI stops."""
    return 1 if report.forbidden_returned else 0
