"""`citadel golden`: judged questions, kept in versions, and held against what is indexed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli.options import as_json, asker_option, pass_settings, show, table
from cli.scratch import standing
from cli.stack import opened_store, tenant_of
from core.config import Settings
from eval import exchange, pool
from eval.check import Finding, check
from eval.exchange import Form
from eval.golden import GoldenSet, read_golden
from eval.pair import side
from eval.record import keep_golden
from eval.report import to_line
from store import golden as sets
from store.golden import StoredGolden
from store.pool import Store, writing


@click.group("golden")
def golden_group() -> None:
    """Keep golden sets: questions, who asks them, what answers them, and what they must never be given."""


@golden_group.command("import", epilog="Example: citadel golden import examples/acme/golden.jsonl --name acme")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Of the set.  [default: the file's, without its ending]")
@asker_option
@click.option("--split", default="test", show_default=True, help="Of a BEIR folder: which of its qrels.")
@as_json
@pass_settings
def import_command(
    settings: Settings, path: Path, name: str | None, subject: str | None, split: str, as_json: bool
) -> None:
    """Take in a file of JSON lines, a BEIR folder or a TREC folder, as the next version of its name.

    What is there already in these very words is not taken in again.
    """
    questions = read_golden(path, subject, split)
    wanted = replace(questions, name=name or questions.name)
    with standing(settings) as running, opened_store(running) as store:
        kept = keep_golden(store, tenant_of(store, running), wanted)
    show(kept, as_json, f"{kept.name}@{kept.version}: {kept.questions} questions")


@golden_group.command("export", epilog="Example: citadel golden export acme@2 acme.jsonl")
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--form", type=click.Choice(["native", "beir", "trec"]), default="native", show_default=True)
@as_json
@pass_settings
def export_command(settings: Settings, name: str, target: Path, form: Form, as_json: bool) -> None:
    """Write the set NAME, or NAME@VERSION, to TARGET: a file of JSON lines, or a folder of BEIR or TREC files."""
    with standing(settings) as running, opened_store(running) as store:
        questions = stored_golden(store, running, name)
    lost = exchange.write(questions, form, target)
    told = {"written": str(target), "questions": len(questions.queries), "left_out": lost}
    text = f"{target}: {len(questions.queries)} questions"
    show(told, as_json, text + (f"; this form has no place for {', '.join(lost)}" if lost else ""))


@golden_group.command("list", epilog="Example: citadel golden list")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """Show every version of every set."""
    with standing(settings) as running, opened_store(running) as store, writing(store) as conn:
        found = sets.listed(conn, tenant_of(store, running))
    rows = [_row(each) for each in found]
    show({"sets": rows}, as_json, table(rows))


def _row(kept: StoredGolden) -> dict[str, Any]:
    return {"name": kept.name, "version": kept.version, "questions": kept.questions,
            "created": kept.created_at.strftime("%F %T"), "digest": kept.digest[:12]}  # fmt: skip


@golden_group.command("check")
@click.argument("golden")
@asker_option
@as_json
@pass_settings
@click.pass_context
def check_command(ctx: click.Context, settings: Settings, golden: str, subject: str | None, as_json: bool) -> None:
    """Hold the judgements of GOLDEN, a file, a folder or a kept set, against what is indexed; status 1 when any fails.

    \b
    dead       the document, quote, page or span is not there any more
    ambiguous  the quote stands in several places, or several documents have the name
    leaking    the asker may not see what is relevant, or may see what is forbidden

    \b
    Examples:
      citadel golden check acme
      citadel golden check examples/acme/golden.jsonl --json
    """
    path = Path(golden)
    with standing(settings) as running, opened_store(running) as store:
        questions = read_golden(path, subject) if path.exists() else stored_golden(store, running, golden)
        found = check(store, tenant_of(store, running), questions)
    counts = Counter(finding.kind for finding in found)
    told = {"questions": len(questions.queries), "counts": dict(counts), "findings": found}
    show(told, as_json, "\n".join([*map(_line, found), _sum(questions, counts)]))
    ctx.exit(1 if found else 0)


def _line(found: Finding) -> str:
    return f"{found.kind:9}  {to_line(found.query_id)}  {to_line(found.document)}: {to_line(found.problem, 120)}"


def _sum(questions: GoldenSet, counts: Counter[Any]) -> str:
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    return f"{len(questions.queries)} questions: {told or 'every judgement holds'}"


@golden_group.command("pool")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("names", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--top", type=click.IntRange(1), default=10, show_default=True, help="Passages of each answer that count."
)
@as_json
@pass_settings
def pool_command(settings: Settings, target: Path, names: tuple[str, ...], top: int, as_json: bool) -> None:
    """Write to TARGET what the kept RUNs found and nobody has judged, for a person to judge.

    The union of the first passages of all runs, a line for each question; each judgement says which run had it where.
    Texts are as the askers may read them now. A judgement with `"confirmed": true` is somebody's; the others are no
    judgements, and a golden set does not take such a line in.

    \b
    Examples:
      citadel golden pool unjudged.jsonl main candidate
      citadel golden pool unjudged.jsonl main dense lexical --top 5
    """
    with standing(settings) as running, opened_store(running) as store:
        owner = tenant_of(store, running)
        lines = pool.pool(store, [side(store, owner, name) for name in names], top)
    pool.write(target, lines)
    judgements = sum(len(line["relevant"]) for line in lines)
    told = {"written": str(target), "questions": len(lines), "judgements": judgements}
    show(told, as_json, f"{target}: {judgements} unjudged documents of {len(lines)} questions")


def questions_of(settings: Settings, golden: str, subject: str | None) -> GoldenSet:
    """Those of a file or folder of questions, else of the set NAME or NAME@VERSION that the tenant keeps.

    Raises Invalid, NotFound.
    """
    path = Path(golden)
    if path.exists():
        return read_golden(path, subject)
    with opened_store(settings) as store:
        return stored_golden(store, settings, golden)


def stored_golden(store: Store, settings: Settings, name: str) -> GoldenSet:
    """The set NAME or NAME@VERSION that the tenant keeps. Raises NotFound, which says what to do."""
    with writing(store) as conn:
        tenant_id = tenant_of(store, settings)
        row = sets.named(conn, tenant_id, *sets.numbered(name))
        return exchange.from_lines(row.name, row.digest, sets.lines(conn, row.id))
