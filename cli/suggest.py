"""`citadel golden suggest` and `golden review`: from what people asked and said to judgements."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from cli.access import ACTOR
from cli.golden import golden_group, stored_golden
from cli.options import as_json, pass_settings, show
from cli.scratch import standing
from cli.stack import open_searcher, opened_store, tenant_of
from core.config import Settings
from core.errors import NotFound
from core.records import Passage, Principal, SearchRequest
from eval import review
from eval.check import without_gone
from eval.golden import GoldenSet
from eval.record import keep_golden
from eval.report import to_line
from eval.suggest import BEST, suggest
from retrieval.search import Searcher, search
from store import asked
from store.pool import Store, writing

ANSWERS = {"y": True, "n": False}
WIDTH = 100
LONGEST = 1500  # characters of a passage that are shown


@golden_group.command("suggest", epilog="Example: citadel golden suggest suggestions.jsonl --name acme")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", help="The golden set that they are for: what it judges already is left out.")
@click.option("--since", type=click.DateTime(), help="UTC: only what was asked since then.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True,
              help="Searches that are looked at, those with feedback first.")  # fmt: skip
@as_json
@pass_settings
def suggest_command(
    settings: Settings, target: Path, name: str | None, since: datetime | None, limit: int, as_json: bool
) -> None:
    """Write what feedback and sampled questions suggest to TARGET, a file for `citadel golden review`.

    A file that is there keeps its decisions, and what is new is added. Passages are as their askers may read them now.
    """
    lines = review.read(target)
    with open_searcher(settings) as searcher:
        tenant_id = tenant_of(searcher.store, settings)
        with writing(searcher.store) as conn:
            kept = asked.listed(conn, tenant_id, since and since.replace(tzinfo=UTC), limit)
        found = suggest(searcher.store, tenant_id, kept, partial(_find, searcher, tenant_id))
        known = _known(searcher.store, settings, name)
    lines = review.merged(lines, found.questions, known)
    review.write(target, lines)
    told = {"written": str(target), "searches": len(kept), "questions": len(lines),
            "pending": len(review.pending(lines)), "left_out": dict(found.left_out)}  # fmt: skip
    left = "".join(f"\n{count} searches left out: {why}" for why, count in found.left_out.items())
    text = f"{target}: {told['questions']} questions, {told['pending']} judgements to confirm{left}"
    show(told, as_json, f"{text}\nnext: citadel golden review {target} --name {name or 'NAME'}")


def _find(searcher: Searcher, tenant_id: UUID, subject: str, words: str) -> Sequence[Passage]:
    request = SearchRequest(words, top_k=BEST)
    return search(searcher, Principal(tenant_id, subject, via=ACTOR), request).passages


def _known(store: Store, settings: Settings, name: str | None) -> GoldenSet | None:
    """The set of that name as it stands; None when there is none yet."""
    if name is None:
        return None
    try:
        return stored_golden(store, settings, name)
    except NotFound:
        return None


@golden_group.command("review")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The golden set whose next version has what is confirmed.  [default: none is made]")
@click.option("--ask/--no-ask", default=True, show_default=True, help="Ask about each, or go by the file as edited.")
@as_json
@pass_settings
def review_command(settings: Settings, path: Path, name: str | None, ask: bool, as_json: bool) -> None:
    """Confirm (y), reject (n) or skip (s) each suggested judgement in PATH, or quit (q) and go on another time.

    Each answer is in the file at once. At the end, what is confirmed is added to the golden set; the rest never is,
    nor what is not in the index any more, or hidden from the asker by now.
    To decide in an editor, set `confirmed` to true or false, change grades and quotes, and run with --no-ask.

    \b
    Examples:
      citadel golden review suggestions.jsonl --name acme
      citadel golden review suggestions.jsonl --name acme --no-ask
    """
    lines = review.read(path)
    if ask and not _asked_through(path, lines):
        click.echo(f"the rest waits: citadel golden review {path}" + (f" --name {name}" if name else ""), err=True)
        return
    lines = review.read(path)
    confirmed = review.confirmed(lines)
    told: dict[str, Any] = {"confirmed": sum(len(query.relevant) for query in confirmed), "questions": len(confirmed),
                            "pending": len(review.pending(lines)), "set": None}  # fmt: skip
    text = f"{told['confirmed']} judgements of {told['questions']} questions confirmed, {told['pending']} pending"
    if name and confirmed:
        with standing(settings) as running, opened_store(running) as store:
            tenant_id = tenant_of(store, running)
            standing_ones, gone = without_gone(store, tenant_id, confirmed)
            told["left_out"] = gone
            text += "".join(f"\nleft out: {to_line(each.document)}: {to_line(each.problem, 120)}" for each in gone)
            if standing_ones:
                kept = keep_golden(store, tenant_id, review.joined(name, _known(store, running, name), standing_ones))
                told["set"] = asdict(kept)
                text += f"\n{kept.name}@{kept.version}: {kept.questions} questions"
                text += f"; check it: citadel golden check {kept.name}"
    show(told, as_json, text)


def _asked_through(path: Path, lines: list[review.Line]) -> bool:
    """Ask about whatever is pending; whether the person came to the end."""
    waiting = review.pending(lines)
    for number, place in enumerate(waiting, start=1):
        click.echo(_card(lines[place.line], place.judgement, f"{number} of {len(waiting)}"), err=True)
        choice = click.Choice([*ANSWERS, "s", "q"])
        answer = click.prompt("relevant? yes, no, skip, quit", type=choice, err=True)
        if answer == "q":
            return False
        if answer in ANSWERS:
            lines = review.decided(lines, place, ANSWERS[answer])
            review.write(path, lines)
    return True


def _card(line: review.Line, judgement: int, place: str) -> str:
    """A judgement as a person decides on it. Nothing in it steers the terminal."""
    suggested = line["relevant"][judgement]
    where = " > ".join([str(suggested.get("document")), *map(str, suggested.get("heading", ()))])
    text = str(suggested.get("quote") or suggested.get("shown") or "(the whole document)")
    said = [f"    {to_line(str(each), 300)}" for each in line["suggested"].get("said", ())]
    quoted = textwrap.fill(to_line(text, LONGEST), WIDTH, initial_indent="  | ", subsequent_indent="  | ")
    return "\n".join([
        f"\n--- {place}", f"{to_line(str(line.get('as')))} asked: {to_line(str(line.get('query')), 500)}", *said,
        f"  {to_line(where, 200)}", quoted,
        f"  grade {suggested.get('grade', 1)}; {to_line(str(suggested.get('suggested', 'added by hand')), 200)}",
    ])  # fmt: skip
