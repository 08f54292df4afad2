"""`citadel tune`: which settings of the search answer a golden set best, held against questions that had no say."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
from ir_measures import Measure

from cli.fusion import change_fusion
from cli.golden import questions_of
from cli.kept import answering, kept_embedder, place_of
from cli.options import (
    as_json,
    asker_option,
    html_option,
    markdown_option,
    pass_settings,
    plain,
    progress_option,
    show,
    table,
)
from cli.scratch import ChunkSize, bar, scratch_settings, standing
from cli.stack import late_boxed, opened_store, tenant_of
from core.config import Settings
from core.errors import DeadlineExceeded, Invalid
from core.records import Fusion, Mode, Principal, SearchRequest
from eval import tune_page
from eval.asking import Setting
from eval.collection import SUBJECT, Collection, Part, is_collection, read_collection
from eval.compare import Rankings
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import Judged, judge
from eval.kept import Kept, load, save
from eval.measures import parse_measures
from eval.page import write_page
from eval.rank import Ranker
from eval.run import ask_each
from eval.scratch import visible_places
from eval.split import split
from eval.tune import GRID, KNOBS, Change, Knob, Rank, Tuned, Way, tune
from retrieval.rerank import LATE
from store.pool import reading_tenant
from store.profiles import fusion_of


def _knobs(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Knob, ...]:
    found = tuple(knob for knob in KNOBS if knob in {part.strip() for part in value.split(",")})
    if len(found) < len({part.strip() for part in value.split(",")}):
        raise click.BadParameter(f"write some of {','.join(KNOBS)} with commas between, not {value!r}")
    return found


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() and int(part) >= 16 for part in parts):
        raise click.BadParameter(f"write sizes from 16 on with commas between, such as 400,800; not {value!r}")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is tuned, and by what."""

    measure: Measure
    knobs: tuple[Knob, ...]
    share: float
    together: bool
    progress: bool


@click.command("tune")
@click.argument("golden")
@click.option("--measure", default="nDCG@10", show_default=True, help="P, R, nDCG, RR, AP, Success or Bpref.")
@click.option("--over", "knobs", default=",".join(KNOBS), show_default=True, callback=_knobs, metavar="KNOB,…",
              help="What is turned: how legs are fused, what late interaction counts, how many candidates there are, "
              "k1 and b.")  # fmt: skip
@click.option("--chunk-chars", "sizes", default="", callback=_sizes, metavar="N,N,…",
              help="Of a collection that judges documents: index it anew in such chunks, too.")  # fmt: skip
@click.option("--held-out", "share", type=click.FloatRange(0.1, 0.9), default=0.5, show_default=True,
              help="Share of the questions that have no say, and decide.")  # fmt: skip
@click.option("--apart", is_flag=True, help="Let questions about one document come into different parts.")
@click.option(
    "--apply", "applied", is_flag=True, help="Make the best fusion the tenant's, if the held-out part passes it."
)
@click.option("--part", type=click.Choice(["test", "tune", "held"]), default="test", show_default=True,
              help="Of a collection: which of its questions.")  # fmt: skip
@asker_option
@click.option("--tenant", help="The tenant to search.  [default: the one in CITADEL_TENANT, or a collection's own]")
@html_option
@markdown_option
@progress_option
@as_json
@pass_settings
def tune_command(
    settings: Settings, golden: str, measure: str, knobs: tuple[Knob, ...], sizes: tuple[int, ...], share: float,
    apart: bool, applied: bool, part: Part, subject: str | None, tenant: str | None, html: Path | None,
    markdown: Path | None, progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look for settings that answer GOLDEN better, on one part of its questions, and measure them on the other.

    GOLDEN is what `citadel eval run` takes. Questions about one document stay together; which part they are in, their
    ids say. The legs are asked once and kept: another fusion, blend or pool asks nothing again, another k1 or b the
    lexical leg. On the held-out questions the best fusion and the best of everything are each compared with the present
    setting, paired by question, and corrected for there being two (Holm). Where neither is better beyond chance it says
    so, and nothing is changed.

    \b
    Examples:
      citadel tune acme
      citadel tune acme --over fusion --apply
      citadel tune scifact/ --measure R@50 --html tune.html
      citadel tune scifact/ --over fusion --chunk-chars 400,800,1600 --json
    """
    wanted = _Wanted(_measure(measure), knobs, share, not apart, progress)
    folder = Path(golden)
    if is_collection(folder) and tenant is None:
        if applied:
            raise Invalid("a collection's own tenant serves nobody: `--apply` needs questions about your own documents")
        collection = read_collection(folder, part, subject)
        with standing(settings) as running:
            found = _tuned_collection(running, collection, subject or SUBJECT, sizes, wanted)
    else:
        if sizes:
            raise Invalid("only a collection brings the documents that another chunk size needs: leave the sizes out")
        chosen = replace(settings, tenant=tenant or settings.tenant)
        found = _tuned_set(chosen, questions_of(chosen, golden, subject), wanted)
        if applied and (winner := found.fusion()):
            with opened_store(chosen) as store:
                change_fusion(store, tenant_of(store, chosen), winner.way.fusion)
    write_page(tune_page.tune_page(found, folder.name), html, markdown)
    told = {**plain(tune_page.to_dict(found)), "applied": applied and found.fusion() is not None}
    show(told, as_json, _text(found, applied))


def _measure(written: str) -> Measure:
    measures = parse_measures(written)
    if len(measures) != 1:
        raise Invalid("name one measure to tune by, such as nDCG@10")
    return measures[0]


def _tuned_set(settings: Settings, questions: GoldenSet, wanted: _Wanted) -> Tuned:
    """By documents within the first k passages, as `citadel eval run` measures a set of one's own."""
    judged = Judged("document", {query.id: query.gains() for query in questions.queries if query.answerable()})
    cutoff = wanted.measure.params.get("cutoff")
    with ExitStack() as opened:
        ranker = _ranker(opened, settings, questions, cutoff, False, wanted)
        return _tuned(settings, questions, judged, ranker, _grid(wanted, ()), wanted)


def _tuned_collection(
    running: Settings, collection: Collection, subject: str, sizes: Sequence[int], wanted: _Wanted
) -> Tuned:
    """Each chunk size is an index of its own, made when the first setting asks for it."""
    questions, following = collection.golden, running.lexical == "fast"
    by_label = {"": ChunkSize(), **{f"{size} characters": ChunkSize(chars=size) for size in sizes}}
    with ExitStack() as opened:
        indexes: dict[str, tuple[Settings, Ranker]] = {}

        def index(label: str) -> tuple[Settings, Ranker]:
            if label not in indexes:
                scratch = scratch_settings(running, collection, by_label[label], wanted.progress)
                indexes[label] = scratch, _ranker(opened, scratch, questions, None, following, wanted)
            return indexes[label]

        def rank(way: Way, ids: frozenset[str]) -> Rankings:
            return index(way.chunks)[1](way, ids)

        scratch = index("")[0]
        with opened_store(scratch) as store:
            judged = judge(questions, visible_places(store, Principal(tenant_of(store, scratch), subject)))
        if sizes and judged.unit == "passage":
            raise Invalid("its spans make other passages relevant in chunks of another size, and such figures do not "
                          "compare: use `citadel eval run --chunk-chars` and its SpanIoU")  # fmt: skip
        return _tuned(scratch, questions, judged, rank, _grid(wanted, list(by_label)[1:]), wanted)


def _grid(wanted: _Wanted, labels: Sequence[str]) -> list[Sequence[Change]]:
    found: list[Sequence[Change]] = [[{"chunks": label} for label in labels]] if labels else []
    return found + [changes for knob in wanted.knobs for changes in GRID[knob]]


def _tuned(
    settings: Settings, questions: GoldenSet, judged: Judged, rank: Rank,
    grid: Sequence[Sequence[Change]], wanted: _Wanted,
) -> Tuned:  # fmt: skip
    parts = split(questions, wanted.share, wanted.together)
    with opened_store(settings) as store, reading_tenant(store, tenant_of(store, settings)) as conn:
        fusion = fusion_of(conn, tenant_of(store, settings))
    present = Way(fusion, settings.late_weight, settings.late_pool, settings.pool, settings.bm25_k1, settings.bm25_b)
    with bar("settings", wanted.progress) as step:
        return tune(rank, judged, parts, present, grid, wanted.measure, step)


# --- the legs -----------------------------------------------------------------------------------------------------


def _ranker(
    opened: ExitStack, settings: Settings, questions: GoldenSet, cutoff: int | None, following: bool, wanted: _Wanted
) -> Ranker:
    """Behind both legs, which are asked now for what is not kept."""
    legs = _Legs(settings, questions, following, wanted.progress)
    kept = legs.asked(settings, "hybrid", questions.queries)
    store = opened.enter_context(opened_store(settings))
    opened.callback(legs.keep)
    late = late_boxed(settings, ready=False)[LATE].reranker
    embedder = kept_embedder(settings, store, kept)
    return Ranker(store, tenant_of(store, settings), embedder, late, questions, (kept, legs.lexical), cutoff)


class _Legs:
    """What the legs of one index gave, by k1 and b; asked for what is not kept, and kept where runs keep it."""

    def __init__(self, settings: Settings, questions: GoldenSet, following: bool, progress: bool) -> None:
        self._settings, self._questions = settings, questions
        self._following, self._progress = following, progress
        self._kept: dict[Settings, tuple[Path, Kept]] = {}

    def lexical(self, way: Way, queries: Sequence[GoldenQuery]) -> Kept:
        """The lexical leg's under the setting's k1 and b."""
        return self.asked(replace(self._settings, bm25_k1=way.k1, bm25_b=way.b), "lexical", queries)

    def asked(self, settings: Settings, mode: Mode, queries: Sequence[GoldenQuery]) -> Kept:
        """What is kept under these settings, after what it lacks of these questions was asked. Raises
        DeadlineExceeded."""
        if settings not in self._kept:
            with opened_store(settings) as store:
                place = place_of(settings, store, {query.subject for query in self._questions.queries})
            self._kept[settings] = place, load(place)
        place, kept = self._kept[settings]
        missing = tuple(query for query in queries if not kept.has(mode, query.subject, query.query))
        if missing:
            self._ask(settings, mode, replace(self._questions, queries=missing), kept)
            save(place, kept)
            kept.changed = False
        return kept

    def keep(self) -> None:
        """Write what came to be known since."""
        for place, kept in self._kept.values():
            if kept.changed:
                save(place, kept)

    def _ask(self, settings: Settings, mode: Mode, missing: GoldenSet, kept: Kept) -> None:
        request = SearchRequest("", top_k=1, mode=mode, rerank="none", fusion=Fusion())
        told = f"{mode}, k1 {settings.bm25_k1:g}, b {settings.bm25_b:g}"
        with ExitStack() as opened:
            step = opened.enter_context(bar(told, self._progress))
            store, asker = answering(opened, settings, kept, missing, mode, request, self._following)
            nothing = {query.id: () for query in missing.queries}
            asked = asker(Setting(tenant_of(store, settings), mode, request, Fusion(), 0, nothing))
            total = len(missing.queries)
            ask_each(asked, missing, {}, os.cpu_count() or 2, lambda answers: None, partial(_step, step, total))
        if not all(kept.has(mode, query.subject, query.query) for query in missing.queries):
            raise DeadlineExceeded("a leg did not answer in time: set CITADEL_SEARCH_DEADLINE_S higher, or tune when "
                                   "the machine has less to do")  # fmt: skip


def _step(step: Callable[[int, int], None], total: int, done: int) -> None:
    step(done, total)


# --- shown --------------------------------------------------------------------------------------------------------


def _text(found: Tuned, applied: bool) -> str:
    parts = [tune_page.head(found), f"present: {tune_page.way_text(found.present)}",
             f"\nthe best of {len(found.tried)} settings on the training questions:",
             *(f"  {value}  {way}" for way, value in tune_page.best_rows(found, 5))]  # fmt: skip
    if found.finalists:
        rows = [dict(zip(tune_page.HEAD, row, strict=True)) for row in tune_page.held_rows(found)]
        parts += ["\non the questions that were held out:", table(rows)]
    parts.append("\n" + tune_page.verdict(found))
    if winner := found.fusion():
        way = tune_page.fusion_text(winner.way.fusion)
        parts.append(f"The tenant's fusion is {way} now." if applied else f"With --apply its fusion becomes {way}.")
    elif applied:
        parts.append("Nothing was applied.")
    return "\n".join(parts)
