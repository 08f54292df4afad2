"""Runs and comparisons as one self-contained HTML file, and as markdown for a pull request.

What a passage says is read when the page is written, as the principal who asked, and stands in it only as far as that
one may see it then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from uuid import UUID

from core.records import Place, Principal
from eval import plots
from eval.golden import GoldenQuery
from eval.pair import Comparison, Side, order, shown, side
from eval.record import judged_spans
from eval.report import told_percentiles
from eval.slices import SHARES
from store import access, documents, golden, runs
from store.documents import Span
from store.pool import Store, reading_tenant, writing
from store.runs import StoredPassage, StoredRun

WORST, SHOWN, MOVED = 8, 4, 10  # questions, passages of each, moved questions on either side
TEXT = 600  # characters of a passage that are shown
STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #22282f; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1.2rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dde3 }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #eef1f4; vertical-align: top }
th:first-child, td:first-child, .text { text-align: left; overflow-wrap: break-word }
td { white-space: nowrap } td.text { white-space: normal; min-width: 3.5rem; max-width: 26rem }
th { color: #5b6672; font-weight: 600 }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0 }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; align-items: start }
.box { border: 1px solid #d8dde3; border-radius: 4px; padding: .5rem .7rem; margin: .4rem 0; overflow-wrap: anywhere }
.from { color: #5b6672; font-size: .85rem } mark { background: #ffe9a8 } .note { color: #5b6672 }
@media (max-width: 46rem) { .pair { grid-template-columns: 1fr } }
"""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body>
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; the columns named in `words` hold words, the others figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG with a caption; in markdown the same as a table, where there is one."""

    svg: str
    told: str
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A text with where it comes from; `marks` are the parts of it that were judged."""

    origin: str
    text: str
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """A question: what came on the left, what was judged on the right; or another pair that `heads` names."""

    title: str
    came: tuple[Box, ...]
    judged: tuple[Box, ...]
    heads: tuple[str, str] = ("what came", "what was judged")


Block = str | Table | Plot | Beside


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]


def write(store: Store, owner: UUID, run: StoredRun, html: Path | None, markdown: Path | None) -> None:
    """The run's report, in the forms that are wanted."""
    if html or markdown:
        write_page(run_page(store, owner, side(store, owner, str(run.id))), html, markdown)


def write_page(page: Page, html: Path | None, markdown: Path | None) -> None:
    """The page, in the forms that are wanted."""
    if html:
        html.write_text(to_html(page), "utf-8")
    if markdown:
        markdown.write_text(to_markdown(page), "utf-8")


# --- a run --------------------------------------------------------------------------------------------------------


def run_page(store: Store, owner: UUID, of: Side) -> Page:
    """Measures, slices, latency, and the worst questions with what they were given."""
    told = of.run.summary or {}
    with writing(store) as conn:
        ms = [answer.ms for answer in runs.answers(conn, of.run.id).values() if answer.ms is not None]
    sections = [
        Section("Measures", (_measures(told), *_curve(told))),
        Section("Slices", _slices(told)),
        Section("Forbidden documents", (_forbidden(told),)),
        Section("Service", _service(told, ms)),
        Section("Worst questions", tuple(_worst(store, of))),
        Section("Configuration", (_config(of.run.config),)),
    ]
    asked = f"{of.run.name}: {of.run.config['golden']}, {told.get('scored', 0)} scored questions"
    return Page(asked, tuple(section for section in sections if section.blocks))


def _measures(told: Mapping[str, Any]) -> Table:
    means = {**told["measures"], **told["spans"]["measures"]}
    rows = []
    for name, mean in sorted(means.items(), key=lambda item: order(item[0])):
        interval = told["intervals"].get(name)
        shown = f"[{interval['low']:.3f}, {interval['high']:.3f}]" if interval else "–"
        rows.append((name, f"{mean:.3f}", shown))
    return Table(("measure", "mean", "95 % of resamples"), tuple(rows))


def _curve(told: Mapping[str, Any]) -> tuple[Block, ...]:
    if not told.get("curve"):
        return ()
    points = [(n / 10, value) for n, value in enumerate(told["curve"])]
    return (
        Plot(plots.curve(points, "recall", "precision"), "Interpolated precision at each recall, as TREC plots it."),
    )


def _slices(told: Mapping[str, Any]) -> tuple[Block, ...]:
    slices = {key: s for key, s in sorted(told["slices"].items()) if s["queries"] < told["scored"]}  # all is no slice
    name = _main(told["measures"])
    if not slices or not name:
        return ()
    rows = [(key, s["measures"][name], f"{s['measures'][name]:.3f} of {s['queries']}") for key, s in slices.items()]
    table = Table(("slice", "questions", name), tuple((key, str(s["queries"]), f"{s['measures'][name]:.3f}")
                                                      for key, s in slices.items()))  # fmt: skip
    return (Plot(plots.bars(rows), f"{name} by slice, and of how many questions.", table), *_selectivity(told))


def _selectivity(told: Mapping[str, Any]) -> tuple[Block, ...]:
    """Every recall by how much of the index the askers may see: filtered search loses there first."""
    names = [f"R@{cutoff}" for cutoff in told["cutoffs"]]
    found = {key.removeprefix("visible:"): each for key, each in told["slices"].items() if key.startswith("visible:")}
    rows = tuple(
        (share, str(found[share]["queries"]), *(f"{found[share]['measures'][name]:.3f}" for name in names))
        for _, share in SHARES if share in found
    )  # fmt: skip
    return (Table(("the asker may see", "questions", *names), rows),) if rows else ()


def _main(measures: Mapping[str, float]) -> str | None:
    ordered = sorted(measures, key=order)
    return next((name for name in reversed(ordered) if name.startswith("nDCG")), next(iter(ordered), None))


def _forbidden(told: Mapping[str, Any]) -> Block:
    forbidden = told["forbidden"]
    if not forbidden["count"]:
        return f"None of {forbidden['judged']} came back."
    rows = [(leak["query_id"], leak["subject"], leak["document"], str(leak["rank"])) for leak in forbidden["returned"]]
    return Table(("question", "asked by", "was given", "at rank"), tuple(rows), (0, 1, 2))


def _service(told: Mapping[str, Any], ms: Sequence[float]) -> tuple[Block, ...]:
    lines: list[Block] = [
        f"Context: {told['tokens']:.0f} tokens in the first {told['cutoffs'][-1]} passages, on average."
    ]
    if told["degraded"]:
        lines.append("; ".join(f"{number} answers went without {stage}" for stage, number in told["degraded"].items()))
    if not ms:
        return (*lines, "Latency was not measured: the legs' answers were kept ones.")
    lines.append(f"Latency: p50 {told['ms_p50']:.0f} ms, p95 {told['ms_p95']:.0f} ms, of {len(ms)} questions.")
    if told.get("ms"):
        lines[-1] = f"Latency: {told_percentiles(told['ms'], 'ms')}, of {len(ms)} questions."
    return (*lines, Plot(plots.histogram(ms, "milliseconds"), "Latency of a search."))


def _config(config: Mapping[str, Any]) -> Table:
    return Table(("setting", "value"), tuple((key, shown(value)) for key, value in sorted(config.items())), (0, 1))


def _worst(store: Store, of: Side) -> list[Block]:
    name = _main(next(iter(of.values.values()))) if of.values else None
    if name is None:
        return []
    below = sorted((values[name], query_id) for query_id, values in of.values.items() if values.get(name, 1.0) < 1)
    worst = [query_id for _, query_id in below[:WORST]]
    by_id = {query.id: query for query in of.golden.queries}
    spans = judged_spans(store, of.run.searched, of.golden)
    with writing(store) as conn:
        found = runs.passages(conn, of.run.id, worst)
    return [
        _beside(store, of.run, by_id[q], of.values[q][name], name, [p for p in found if p.query_id == q],
                spans.get(q, []))
        for q in worst if q in by_id
    ]  # fmt: skip


def _beside(
    store: Store, run: StoredRun, query: GoldenQuery, value: float, name: str, passages: Sequence[StoredPassage],
    judged: Sequence[Place],
) -> Beside:  # fmt: skip
    """Both sides as the question's principal may read them now."""
    wanted = judged or [Place(document, 0, TEXT) for document, grade in query.gains().items() if grade > 0]
    with reading_tenant(store, run.searched) as conn:
        access.enter_scope(conn, Principal(run.searched, query.subject))
        there = golden.standing(conn, run.searched, [(place.external_id, None) for place in wanted])
        spans = [Span(row.document_id, row.version, wanted[row.n - 1].start, min(row.length, wanted[row.n - 1].end))
                 for row in there]  # fmt: skip
        shown = [Span(p.document_id, p.version, p.start, p.end) for p in passages[:SHOWN]]
        texts = documents.read_spans(conn, [*shown, *spans])
    came = tuple(
        Box(f"{p.rank}. {p.external_id}, {p.start}–{p.end}", texts.get(span, "(not to be seen by the asker now)"),
            _marks(p, judged))
        for p, span in zip(passages, shown, strict=False)
    )  # fmt: skip
    right = tuple(
        Box(f"{wanted[row.n - 1].external_id}, {span.start}–{span.end}" + ("" if judged else ", its beginning"),
            texts.get(span, "(not to be seen by the asker now)"))
        for row, span in zip(there, spans, strict=True)
    )  # fmt: skip
    return Beside(f"{name} {value:.3f} · {query.id} · {query.subject} asks: {query.query}", came, right)


def _marks(passage: StoredPassage, judged: Sequence[Place]) -> tuple[tuple[int, int], ...]:
    cut = [
        (max(0, place.start - passage.start), min(passage.end, place.end) - passage.start)
        for place in judged if place.external_id == passage.external_id
    ]  # fmt: skip
    return tuple(sorted((start, end) for start, end in cut if start < end))


# --- a comparison ---------------------------------------------------------------------------------------------------


def comparison_page(comparison: Comparison) -> Page:
    """Measures of both, the changes by question, and which questions moved."""
    rows = tuple(
        (r.name, f"{r.before:.3f}", f"{r.after:.3f}", f"{r.change.mean:+.3f}",
         f"[{r.change.low:+.3f}, {r.change.high:+.3f}]", f"{r.p:.4f}", f"{r.p_holm:.4f}",
         f"{r.wins} / {r.losses} / {r.ties}", f"{r.detectable:.3f}")
        for r in comparison.rows
    )  # fmt: skip
    head = ("measure", comparison.before, comparison.after, "change", "95 % of resamples", "p", "p, Holm",
            "won / lost / same", "detectable")  # fmt: skip
    told = f"{comparison.questions} questions. p is of a two-sided paired randomisation test, then corrected (Holm) "
    told += "for all measures here; detectable is the least difference that these questions find with 80 %."
    lost = tuple(m for m in comparison.moved if m.after < m.before)[:MOVED]
    won = tuple(m for m in reversed(comparison.moved) if m.after > m.before)[:MOVED]
    changed = tuple((key, shown(a), shown(b)) for key, (a, b) in comparison.changed.items())
    sections = [
        Section("Measures", (told, Table(head, rows), *_deltas(comparison))),
        Section("What differs", (Table(("setting", comparison.before, comparison.after), changed, (0, 1, 2)),)
                if changed else ("The configurations are the same.",)),
        Section(f"Lost most ({comparison.main})", (_moves(lost),) if lost else ()),
        Section(f"Won most ({comparison.main})", (_moves(won),) if won else ()),
    ]  # fmt: skip
    return Page(f"{comparison.after} against {comparison.before}", tuple(each for each in sections if each.blocks))


def _deltas(comparison: Comparison) -> tuple[Block, ...]:
    if not comparison.deltas:
        return ()
    return (Plot(plots.deltas(comparison.deltas, comparison.main), f"Change of {comparison.main} of each question."),)


def _moves(moved: Sequence[Any]) -> Table:
    rows = tuple((m.query_id, m.query, f"{m.before:.3f} → {m.after:.3f}", "\n".join(m.why) or "other documents moved")
                 for m in moved)  # fmt: skip
    return Table(("id", "question", "value", "why"), rows, (0, 1, 3))


# --- forms --------------------------------------------------------------------------------------------------------


def to_html(page: Page) -> str:
    """One file that fetches nothing and runs nothing."""
    parts = [HEAD.format(title=escape(page.title), style=STYLE), f"<h1>{escape(page.title)}</h1>"]
    for section in page.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += [_html(block) for block in section.blocks]
    return "\n".join([*parts, "</body></html>", ""])


def _html(block: Block) -> str:
    if isinstance(block, Table):
        head = "".join(_cell("th", n, cell, block) for n, cell in enumerate(block.head))
        rows = ["".join(_cell("td", n, cell, block) for n, cell in enumerate(row)) for row in block.rows]
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    if isinstance(block, Plot):
        return f'{block.svg}<p class="note">{escape(block.told)}</p>'
    if isinstance(block, Beside):
        came = "".join(map(_box, block.came)) or '<p class="note">Nothing came.</p>'
        judged = "".join(map(_box, block.judged)) or '<p class="note">Nothing that the asker may see.</p>'
        heads = [f'<p class="note">{escape(head)}</p>' for head in block.heads]
        return (f'<h3>{escape(block.title)}</h3><div class="pair"><div>{heads[0]}{came}</div>'
                f'<div>{heads[1]}{judged}</div></div>')  # fmt: skip
    return f"<p>{escape(block)}</p>"


def _cell(tag: str, n: int, cell: str, table: Table) -> str:
    kind = ' class="text"' if n in table.words else ""
    return f"<{tag}{kind}>{escape(cell).replace(chr(10), '<br>')}</{tag}>"


def _box(box: Box) -> str:
    parts, at = [], 0
    for start, end in box.marks:
        start, end = max(at, start), min(TEXT, end)
        if start < end:
            parts.append(f"{escape(box.text[at:start])}<mark>{escape(box.text[start:end])}</mark>")
            at = end
    parts.append(escape(box.text[at:TEXT]) + ("…" if len(box.text) > TEXT else ""))
    return f'<div class="box"><div class="from">{escape(box.origin)}</div>{"".join(parts)}</div>'


def to_markdown(page: Page) -> str:
    """The same for a pull request, without plots."""
    parts = [f"# {_plain(page.title)}"]
    for section in page.sections:
        shown = [block.table if isinstance(block, Plot) else block for block in section.blocks]
        blocks = [_markdown(block) for block in shown if block]
        parts += [f"## {_plain(section.title)}", *blocks] if blocks else []
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        rule = tuple("---" if n in block.words else "---:" for n in range(len(block.head)))
        lines = (block.head, rule, *block.rows)
        return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
    if isinstance(block, Beside):
        left, right = (head.removeprefix("what ").removeprefix("was ") for head in block.heads)
        boxes = [(left, box) for box in block.came] + [(right, box) for box in block.judged]
        told = [f"- {what} {_plain(box.origin)}: {_plain(box.text[:200])}" for what, box in boxes]
        return "\n".join([f"**{_plain(block.title)}**", "", *told])
    return _plain(block) if isinstance(block, str) else ""


def _plain(text: str) -> str:
    """On one line, and with nothing that markdown or HTML would act on. Rules of a table stay."""
    if set(text) <= {"-", ":"}:
        return text
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]|#!" else escape(c, quote=False) for c in flat)
