"""`citadel eval`: measure the search against a golden set."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from cli.options import as_json, pass_settings, show
from cli.stack import open_searcher, tenant_of
from core.config import Settings
from core.records import Mode
from eval.golden import read_golden
from eval.report import RunReport, make_report, to_dict, to_text
from eval.run import run_golden
from retrieval.search import search


@click.group("eval")
def eval_group() -> None:
    """Measure the search against golden sets."""


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
@click.option("--as", "subject", metavar="LABEL", help="Who asks the questions that name nobody, as in a BEIR folder.")
@click.option("--tenant", help="The tenant to search.  [default: the one in CITADEL_TENANT]")
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
    subject: str | None,
    tenant: str | None,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Ask every question of GOLDEN as the principal that it names; print P, R, nDCG and RR at each cutoff.

    GOLDEN is a file of JSON lines, or a BEIR folder whose corpus is indexed already. Ends with status 1 when a
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
      citadel eval run scifact/ --as user:ana@acme.example
    """
    questions = read_golden(golden, subject)
    shown = sys.stderr.isatty() if progress is None else progress
    settings = replace(settings, tenant=tenant or settings.tenant)
    with open_searcher(settings) as searcher:
        tenant_id = tenant_of(searcher.store, settings)
        with _bar(len(questions.queries), shown) as step:
            run = run_golden(partial(search, searcher), tenant_id, questions, cutoffs, mode, step)
    report = make_report(run)
    show(to_dict(report), as_json, to_text(report))
    ctx.exit(exit_status(report))


def exit_status(report: RunReport) -> int:
    """1 when a forbidden document came back, so that CI stops."""
    return 1 if report.forbidden_returned else 0


@contextmanager
def _bar(length: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """What to call with the number of answered questions."""
    if not shown:
        yield lambda answered: None
        return
    with click.progressbar(length=length, label="questions", file=sys.stderr) as bar:
        yield lambda answered: bar.update(answered - bar.pos)
