"""What a run found, as one JSON object and as a page of text."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ir_measures import IPrec, Measure, nDCG

from core.records import Mode, Place
from eval.bootstrap import Estimate, estimates
from eval.chance import detectable
from eval.measures import (
    MEASURES,
    UNJUDGED,
    Leak,
    default_measures,
    documents_within,
    forbidden_returned,
    mean_values,
    percentile,
    query_values,
    unjudged,
)
from eval.run import Answered, Run
from eval.spans import NAMES, span_values

RANKED = {
    None: "documents of the first k passages",
    "document": "documents by their best passage",
    "passage": "passages, relevant where they overlap a judged span",
}
CURVE = tuple(IPrec @ (step / 10) for step in range(11))
WORST = 5  # questions shown on the page
PERCENTILES = (50, 90, 95, 99)
WIDTH = 100  # columns of the page
DEVIATION = 0.15  # of paired differences by question, where there is no other run yet to tell it


@dataclass(frozen=True, slots=True)
class Slice:
    """The means over some of the questions."""

    queries: int  # those with a relevant document
    measures: dict[str, float]  # name → mean


@dataclass(frozen=True, slots=True)
class QueryReport:
    """One question's figures."""

    id: str
    subject: str
    query: str
    tags: tuple[str, ...]
    values: dict[str, float]  # empty when no document is relevant to it
    documents: tuple[str, ...]  # within the largest cutoff, best first
    ms: float | None  # None where kept legs answered
    degraded: tuple[str, ...]
    tokens: int = 0  # of the passages within the largest cutoff


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that a run found."""

    golden: str
    digest: str  # of the golden set's content
    mode: Mode
    cutoffs: tuple[int, ...]
    overall: Slice
    tags: dict[str, Slice]
    forbidden_judged: int  # pairs of a question and a document that must not come
    forbidden_returned: tuple[Leak, ...]  # those that came
    ms_p50: float | None  # None where every leg was a kept one
    ms_p95: float | None
    degraded: dict[str, int]  # stage → answers that went without it
    queries: tuple[QueryReport, ...]
    ranked: str = RANKED[None]  # what the measures are of
    intervals: dict[str, Estimate] = field(default_factory=dict)  # of the means that are over every scored question
    slices: dict[str, Slice] = field(default_factory=dict)  # e.g. `source:handbook`, `visible:≤ 1 %`
    spans: Slice = Slice(0, {})  # over the questions whose judgements all say where the text is
    tokens: float = 0.0  # mean of the questions'
    curve: tuple[float, ...] = ()  # interpolated precision at recall 0, 0.1, … 1, over the scored questions
    ms: dict[str, float] = field(default_factory=dict)  # p50, p90, p95, p99 of what was measured
    tokens_of: dict[str, float] = field(default_factory=dict)  # the same of the context
    detectable: float = 0.0  # the least difference of two runs that such a set finds with 80 %, at DEVIATION


def make_report(
    run: Run,
    measures: Sequence[Measure] = (),
    spans: Mapping[str, Sequence[Place]] | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> RunReport:
    """Measure the run: by the default measures, the given ones, and in characters where `spans` has judged text."""
    values = measured(run, measures, spans or {})
    queries = tuple(_query_report(answered, values, run.cutoffs[-1]) for answered in run.answers)
    latencies = [answered.ms for answered in run.answers if answered.ms is not None]
    scored = [query.values for query in queries if query.values]
    by_slice = _by_slice(queries, slices or {})
    return RunReport(
        golden=run.golden.name,
        digest=run.golden.digest,
        mode=run.mode,
        cutoffs=run.cutoffs,
        overall=_slice(queries),
        tags={tag: _slice(q for q in queries if tag in q.tags) for tag in sorted({t for q in queries for t in q.tags})},
        forbidden_judged=sum(len(answered.query.forbidden) for answered in run.answers),
        forbidden_returned=tuple(forbidden_returned(run)),
        ms_p50=percentile(latencies, 0.5) if latencies else None,
        ms_p95=percentile(latencies, 0.95) if latencies else None,
        degraded=run.degraded(),
        queries=queries,
        ranked=RANKED[run.judged.unit if run.judged else None],
        intervals=estimates({name: [row[name] for row in scored] for name in common(scored)}),
        slices=by_slice,
        spans=_slice_of([row for row in scored if any(name in row for name in _span_names(run.cutoffs))]),
        ms=_percentiles(latencies),
        tokens_of=_percentiles([float(answered.tokens) for answered in run.answers]),
        tokens=sum(answered.tokens for answered in run.answers) / max(1, len(run.answers)),
        curve=tuple(mean_values(query_values(run, CURVE).values()).values()),
        detectable=detectable(DEVIATION, len(scored)) if len(scored) > 1 else 0.0,
    )


def measured(
    run: Run, measures: Sequence[Measure], spans: Mapping[str, Sequence[Place]]
) -> dict[str, dict[str, float]]:
    """Every measure's value by question id; span measures where the question has judged text."""
    wanted = dict.fromkeys([*default_measures(run.cutoffs), *measures])
    values = query_values(run, tuple(wanted))
    deepest = run.cutoffs[-1]
    for query_id, share in unjudged(run, deepest).items():
        values[query_id][f"{UNJUDGED}@{deepest}"] = share
    for answered in run.answers:
        if answered.query.id in values and answered.query.id in spans:
            places = [Place(p.external_id, p.start, p.end) for p in answered.passages]
            values[answered.query.id] |= span_values(places, spans[answered.query.id], run.cutoffs)
    return values


def _span_names(cutoffs: Sequence[int]) -> list[str]:
    return [f"{name}@{cutoff}" for name in NAMES for cutoff in cutoffs]


def common(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The measures that every question has."""
    return [name for name in rows[0] if all(name in row for row in rows)] if rows else []


def summary_of(report: RunReport) -> dict[str, Any]:
    """The report without its questions."""
    told = to_dict(report)
    del told["queries"]
    return told


def to_dict(report: RunReport) -> dict[str, Any]:
    """The report for JSON: `measures` are the means, and `forbidden` counts and lists what came."""
    fields = asdict(report)
    overall, judged, leaks = (fields.pop(name) for name in ("overall", "forbidden_judged", "forbidden_returned"))
    return {
        **fields,
        "scored": overall["queries"],
        "measures": overall["measures"],
        "forbidden": {"judged": judged, "count": len(leaks), "returned": leaks},
    }


def to_text(report: RunReport) -> str:
    """The report for a terminal: measures by cutoff, slices by tag, the worst questions, what was forbidden."""
    parts = [_head(report), _grid(report), _tags(report), _worst(report), _service(report), _forbidden(report)]
    return "\n\n".join(part for part in parts if part)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{at}": percentile(values, at / 100) for at in PERCENTILES} if values else {}


def told_percentiles(of: Mapping[str, float], unit: str) -> str:
    """`p50 12 ms, p90 20 ms, …`."""
    return ", ".join(f"{name} {value:.0f} {unit}" for name, value in of.items())


def _query_report(answered: Answered, values: Mapping[str, dict[str, float]], cutoff: int) -> QueryReport:
    query = answered.query
    documents = documents_within(answered.passages, cutoff)
    return QueryReport(
        query.id, query.subject, query.query, query.tags, values.get(query.id, {}), documents, answered.ms,
        answered.degraded, answered.tokens,
    )  # fmt: skip


def _slice(queries: Iterable[QueryReport]) -> Slice:
    return _slice_of([query.values for query in queries if query.values])


def _slice_of(rows: Sequence[Mapping[str, float]]) -> Slice:
    names = common(rows)
    return Slice(len(rows), mean_values([{name: row[name] for name in names} for row in rows]))


def _by_slice(queries: Sequence[QueryReport], slices: Mapping[str, Sequence[str]]) -> dict[str, Slice]:
    names = sorted({name for of in slices.values() for name in of})
    found = {name: _slice(query for query in queries if name in slices.get(query.id, ())) for name in names}
    return {name: each for name, each in found.items() if each.queries}


# --- the page of text -----------------------------------------------------------------------------------------------


def _head(report: RunReport) -> str:
    subjects = len({query.subject for query in report.queries})
    return (
        f"{to_line(report.golden)}: {len(report.queries)} questions of {subjects} principals, mode {report.mode}; "
        f"{report.overall.queries} have a relevant document and count below; ranked are {report.ranked}"
    )


def _grid(report: RunReport) -> str:
    if not report.overall.queries:
        return "No question has a relevant document: there is nothing to average."
    means = {**report.spans.measures, **report.overall.measures}
    names = [*(str(m) for m in MEASURES), *(name for name in NAMES if report.spans.queries)]
    rows = [[name, *(f"{means[f'{name}@{k}']:.3f}" for k in report.cutoffs)] for name in names]
    told = _table([["", *(f"@{k}" for k in report.cutoffs)], *rows])
    if 0 < report.spans.queries < report.overall.queries:
        told += f"\nSpan measures: of {report.spans.queries} questions whose judgements say where the text is."
    return f"{told}\n\n{_intervals(report)}"


def _intervals(report: RunReport) -> str:
    grid = {str(measure) for measure in default_measures(report.cutoffs)} - {str(nDCG @ report.cutoffs[-1])}
    rows = [
        [name, f"{each.mean:.3f}", f"[{each.low:.3f}, {each.high:.3f}]"]
        for name, each in report.intervals.items()
        if name not in grid and not name.startswith(NAMES)
    ]
    told = _table([["", "mean", "95 % of resamples"], *rows])
    size = f"{report.overall.queries} questions tell differences of {report.detectable:.3f} apart (80 % power, paired "
    return f"{told}\n{size}deviation {DEVIATION})."


def _tags(report: RunReport) -> str:
    names = [str(measure @ report.cutoffs[-1]) for measure in MEASURES]
    of = {name: each for name, each in report.slices.items() if each.queries < report.overall.queries}
    of = of or {f"tag:{tag}": each for tag, each in report.tags.items()}
    rows = [[to_line(k), str(s.queries), *(f"{s.measures[n]:.3f}" for n in names)] for k, s in of.items() if s.queries]
    return _table([["slice", "questions", *names], *rows]) if rows else ""


def _worst(report: RunReport) -> str:
    """The lowest nDCG at the largest cutoff; a perfect answer is never among them."""
    name = str(nDCG @ report.cutoffs[-1])
    below = sorted((query.values[name], query.id, query) for query in report.queries if query.values.get(name, 1.0) < 1)
    rows = [
        [f"{value:.3f}", to_line(query.id), to_line(query.subject), to_line(query.query)] for value, _, query in below
    ]
    return _table([[name, "worst", "", ""], *rows[:WORST]], left=(1, 2, 3)) if rows else ""


def _service(report: RunReport) -> str:
    lines = ["latency: not measured, for the legs were kept ones"]
    if report.ms:
        lines = [f"latency: {told_percentiles(report.ms, 'ms')}"]
    if report.tokens:
        told = f"context: {report.tokens:.0f} tokens in the first {report.cutoffs[-1]} passages, on average"
        lines.append(f"{told}; p95 {report.tokens_of['p95']:.0f}")
    lines += [f"degraded: {number} answers went without {stage}" for stage, number in sorted(report.degraded.items())]
    return "\n".join(lines)


def _forbidden(report: RunReport) -> str:
    leaks = report.forbidden_returned
    lines = [f"forbidden documents returned: {len(leaks)} of {report.forbidden_judged} judged"]
    for leak in leaks:
        lines.append(
            f"  {to_line(leak.subject)} was given {to_line(leak.document)} at rank {leak.rank} ({leak.query_id})"
        )
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns under each other: figures to the right, those in `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip()[:WIDTH])
    return "\n".join(lines)


def to_line(text: str, width: int = 70) -> str:
    """The text on one line, without what would steer the terminal."""
    return textwrap.shorten("".join(c if c.isprintable() else " " for c in text), width, placeholder="…")
