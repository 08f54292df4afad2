"""`citadel eval legs`: each leg, fusion and reranker over judged collections, in one table."""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from cli.options import as_json, pass_settings, progress_option, show
from cli.scratch import ChunkSize, bar, follow, scratch_settings, standing
from cli.stack import open_searcher, opened_store, tenant_of
from core.config import Settings
from core.records import Fusion, Principal, SearchRequest
from eval.collection import SUBJECT, Collection, Part, read_collection
from eval.compare import (
    OWN,
    THEN,
    Rankings,
    Table,
    leg_rankings,
    rows_of,
    summary_markdown,
    to_dict,
    to_markdown,
    to_text,
)
from eval.golden import GoldenSet
from eval.judged import judge
from eval.legs import LEGS, Answers, ask_all, cache_key, kept, ordered
from eval.scratch import index_state, visible_places
from retrieval.search import search
from store.pool import Store, reading_tenant
from store.profiles import fusion_of

FOLDER = "legs"  # in the state folder: what searches gave, by everything that it follows from
PAGE = """\
# Quality

Written by this command; whoever has the collections can run it again:

    {command}

`nDCG@10`, `R@50` and `P@5` are ir-measures' (trec_eval's code), means over the questions with the 95 % interval of
10,000 resamples of the questions in brackets. The last column is the mean difference in nDCG@10 to the better of the
two legs, paired by question: where its interval holds no 0, the difference is more than chance.

Where documents are judged, a document ranks where its best passage does, as in BEIR. Where spans are judged (Chroma's
questions, contextual code), passages are ranked: a passage is relevant when it shares at least one character with a
judged span, all with the same gain, and the ideal ranking holds every such passage of the index. Such figures belong
to one chunk size.

`dense` and `lexical` are the legs alone, `convex w` gives the dense leg the weight w, and the tenant's fusion is what a
search does that is told nothing else. `test` is every question that the collection has for a test; `held` is what is
left of them without `tune`, the part that weights are chosen on: a train split, else half of the questions. What
is nowhere in the first column of the table under "In short" does not help."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """What a table is asked to hold."""

    weights: tuple[float, ...]
    rerankers: tuple[str, ...]
    progress: bool


def _weights(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        found = tuple(sorted({float(part) for part in value.split(",") if part.strip()}))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= weight <= 1 for weight in found):
        raise click.BadParameter(f"write weights from 0 to 1 with commas between, such as 0.3,0.5; not {value!r}")
    return found


def _sized(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[Path, ChunkSize], ...]:
    found = []
    for folder in value:
        path, at, chars = folder.rpartition("@")
        sized = bool(at) and chars.isascii() and chars.isdecimal() and not Path(folder).exists()
        found.append((Path(path), ChunkSize(chars=int(chars))) if sized else (Path(folder), ChunkSize()))
    if missing := [path for path, _ in found if not path.is_dir()]:
        raise click.BadParameter(f"{missing[0]} is no folder: name one that holds a collection, such as scifact/")
    return tuple(found)


@click.command("legs")
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER[@CHARS]…", callback=_sized)
@click.option("--weights", default="0.2,0.3,0.4,0.5,0.6,0.7,0.8", show_default=True, callback=_weights,
              metavar="W,W,…", help="Of the dense leg, for convex fusions beside the tenant's own.")  # fmt: skip
@click.option("--rerank", "rerankers", multiple=True, metavar="NAME",
              help="Also a hybrid search with this reranker; may be given again.")  # fmt: skip
@click.option("--part", "parts", type=click.Choice(["test", "tune", "held"]), multiple=True, default=("test",),
              show_default=True, help="All test questions, or one of two parts that do not meet; may be given again.",
              )  # fmt: skip
@click.option("--write", "page", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the tables to this page, with the command that made them.")  # fmt: skip
@progress_option
@as_json
@pass_settings
def legs_command(
    settings: Settings,
    folders: tuple[tuple[Path, ChunkSize], ...],
    weights: tuple[float, ...],
    rerankers: tuple[str, ...],
    parts: tuple[Part, ...],
    page: Path | None,
    progress: bool,
    as_json: bool,
) -> None:
    """Compare dense, lexical, fusions and rerankers on each FOLDER's questions, with 95 % intervals.

    A folder is a collection as `citadel eval run` takes it; with @CHARS its chunks have at most so many characters.
    Each leg is asked once and its pool is kept under the state folder: another weight, or another fusion, asks nothing
    again. Intervals are of the percentile bootstrap over questions; differences to the best leg are paired.

    \b
    Examples:
      citadel eval legs scifact/ cranfield/
      citadel eval legs chroma-chunking@800 --weights 0.3,0.4 --json
      citadel eval legs scifact/ --part tune --weights 0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9
    """
    compared = _Compared(weights, rerankers, progress)
    wanted = [(read_collection(folder, part), part, size) for folder, size in folders for part in parts]
    # where `held` is `test`, once
    distinct = {(each.digest, size, each.golden.queries): (each, part, size) for each, part, size in reversed(wanted)}
    with standing(settings) as running:
        tables = [_table(running, *each, compared) for each in reversed(distinct.values())]
    if page:
        page.write_text(_page(tables), encoding="utf-8")
    show({"tables": [to_dict(table) for table in tables]}, as_json, "\n\n".join(to_text(table) for table in tables))


def _table(settings: Settings, collection: Collection, part: Part, size: ChunkSize, compared: _Compared) -> Table:
    scratch = scratch_settings(settings, collection, size, compared.progress)
    with ExitStack() as opened:
        store = opened.enter_context(opened_store(scratch))
        tenant_id = tenant_of(store, scratch)
        places = visible_places(store, Principal(tenant_id, SUBJECT))
        with reading_tenant(store, tenant_id) as conn:
            own = fusion_of(conn, tenant_id)
        rankings = _rankings(
            partial(answers_of, opened, scratch, store, collection.golden, compared.progress), own, compared
        )
    judged = judge(collection.golden, places)
    best, rows = rows_of(judged, rankings)
    return Table(collection.name, part, size.chars, judged.unit, len(collection.documents), len(places),
                 len(judged.grades), best, rows)  # fmt: skip


def _rankings(answers: Callable[[SearchRequest], Answers], own: Fusion, compared: _Compared) -> dict[str, Rankings]:
    """Both legs, RRF, convex fusions, the tenant's own fusion, and that one under each reranker."""
    legs = {leg: answers(SearchRequest("", mode=leg, rerank="none", fusion=Fusion())) for leg in LEGS}
    fusions = [Fusion("rrf"), *(Fusion("convex", weight) for weight in compared.weights)]
    others = [(_name(fusion), fusion) for fusion in fusions if _name(fusion) != _name(own)]
    rankings = leg_rankings(legs, [*others, (f"{_name(own)}{OWN}", own)])
    for name in compared.rerankers:
        found = answers(SearchRequest("", rerank=name, fusion=own))
        rankings[f"{_name(own)}{THEN}{name}"] = {i: ordered(found, each) for i, each in found.found.items()}
    return rankings


def _name(fusion: Fusion) -> str:
    return "RRF" if fusion.method == "rrf" else f"convex {fusion.dense_weight:g}"


def answers_of(
    opened: ExitStack, settings: Settings, store: Store, golden: GoldenSet, progress: bool, request: SearchRequest
) -> Answers:
    """What is kept of these searches, or else what they give now; a searcher is opened only then."""
    tenant_id = tenant_of(store, settings)
    state = index_state(store, tenant_id, {query.subject for query in golden.queries})
    known = {**state, "model": settings.model, "reranker": settings.reranker}
    fused = request.mode == "hybrid"

    def ask() -> Answers:
        if settings.lexical == "fast":
            follow(settings)
        searcher = opened.enter_context(open_searcher(settings))
        with bar(f"{golden.name}, {request.rerank if fused else request.mode}", progress) as step:
            total = len(golden.queries)
            return ask_all(partial(search, searcher), tenant_id, golden, request, lambda done: step(done, total))

    return kept(settings.state / FOLDER, cache_key(known, golden, request, fused=fused), ask)


def _page(tables: Sequence[Table]) -> str:
    command = shlex.join(["citadel", *sys.argv[1:]])
    return "\n\n".join([PAGE.format(command=command), summary_markdown(tables), *map(to_markdown, tables)]) + "\n"
