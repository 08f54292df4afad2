"""`citadel search`: ask as somebody, and read the cited passages."""

import json
import textwrap

import click

from cli.options import as_json, pass_settings, plain, show, table
from cli.stack import open_searcher, tenant_of
from core.config import Settings
from core.errors import Invalid
from core.explained import Explained
from core.labels import check_subject
from core.records import Passage, Principal, Recency, SearchAnswer, SearchRequest
from retrieval.search import search


@click.command(
    "search", epilog='Example: citadel search "How are flights booked?" --as user:ana@acme.example --top-k 3'
)
@click.argument("query")
@click.option("--as", "subject", required=True, help="Whose sight to search with, e.g. user:ana@acme.example.")
@click.option("--top-k", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--mode", type=click.Choice(["hybrid", "dense", "lexical"]), default="hybrid", show_default=True)
@click.option("--filters", help='A JSON filter, e.g. {"source": "handbook"}.')
@click.option(
    "--half-life",
    type=click.FloatRange(min=0, min_open=True),
    metavar="DAYS",
    help="Younger documents first: after so many days a document's age counts half.",
)
@click.option("--explain", is_flag=True, help="Tell of the candidates near the cut as well, as a table.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Budget of the context, in the model's tokens.")
@as_json
@pass_settings
def search_command(
    settings: Settings, query: str, subject: str, top_k: int, mode: str, filters: str | None,
    half_life: float | None, explain: bool, max_tokens: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the passages that a person may see, with citations."""
    recency = None if half_life is None else Recency(half_life)
    request = SearchRequest(query, top_k=top_k, mode=mode, filters=_filters(filters), max_tokens=max_tokens,  # type: ignore[arg-type]
                            explain=explain, recency=recency)  # fmt: skip
    with open_searcher(settings) as searcher:
        tenant_id = tenant_of(searcher.store, settings)
        answer = search(searcher, Principal(tenant_id, check_subject(subject), via="service:cli"), request)
    show(plain(answer), as_json, as_text(answer))


def as_text(answer: SearchAnswer) -> str:
    """Passages as a person reads them."""
    parts = [_passage(passage) for passage in answer.passages] or ["nothing that this person may see matches"]
    if answer.degraded:
        parts.append(f"(without: {', '.join(answer.degraded)})")
    if answer.explanation is not None:
        parts.append(table([_row(place, each) for place, each in enumerate(answer.explanation, start=1)]))
    return "\n\n".join(parts)


def _row(place: int, each: Explained) -> dict[str, str]:
    """A candidate in the order that decided; each stage with its place and score."""
    stages = {name: getattr(each, name) for name in ("dense", "lexical", "fused", "rerank")}
    return {
        "": str(place),
        "document": f"{each.external_id}@{each.version}",
        "characters": f"{each.start}–{each.end}",
        **{name: "-" if at is None else f"#{at.rank} {at.score:.3f}" for name, at in stages.items()},
        "became": each.fate.replace("_", " ") + ("" if each.passage is None else f" [{each.passage}]"),
    }


def _passage(passage: Passage) -> str:
    citation = passage.citation
    place = [citation.external_id, f"version {citation.version}"]
    if citation.page is not None:
        place.append(f"page {citation.page}")
    place.append(f"characters {citation.start}–{citation.end}")
    if citation.heading_path:
        place.append(" > ".join(citation.heading_path))
    place += [flag.replace("_", " ") for flag in passage.flags]
    if citation.copies:
        place.append(f"{citation.copies} more say the same")
    text = textwrap.fill(" ".join(passage.text.split()), 112, initial_indent="    ", subsequent_indent="    ")
    title = citation.title or citation.external_id
    return f"{citation.marker} {title}  ({passage.score:.3f})\n    {' · '.join(place)}\n{text}"


def _filters(text: str | None) -> dict[str, object] | None:
    try:
        return None if text is None else dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise Invalid(f"--filters is not a JSON object: {error}") from error
