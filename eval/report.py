"""What a run found, as one JSON object and as a page of text."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ir_measures import nDCG

from core.records import Mode
from eval.measures import (
    MEASURES,
    Leak,
    documents_within,
    forbidden_returned,
    mean_values,
    percentile,
    query_values,
)
from eval.run import Answered, Run

RANKED = {
    None: "documents of the first k passages",
    "document": "documents by their best passage",
    "passage": "passages, relevant where they overlap a judged span",
}
WORST = 5  # questions shown on the page
WIDTH = 100  # columns of the page


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
    ms: float
    degraded: tuple[str, ...]


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
    ms_p50: float
    ms_p95: float
    degraded: dict[str, int]  # stage → answers that went without it
    queries: tuple[QueryReport, ...]
    ranked: str = RANKED[None]  # what the measures are of


def make_report(run: Run) -> RunReport:
    """Measure the run."""
    values = query_values(run)
    queries = tuple(_query_report(answered, values, run.cutoffs[-1]) for answered in run.answers)
    latencies = [answered.ms for answered in run.answers]
    return RunReport(
        golden=run.golden.name,
        digest=run.golden.digest,
        mode=run.mode,
        cutoffs=run.cutoffs,
        overall=_slice(queries),
        tags={tag: _slice(q for q in queries if tag in q.tags) for tag in sorted({t for q in queries for t in q.tags})},
        forbidden_judged=sum(len(answered.query.forbidden) for answered in run.answers),
        forbidden_returned=tuple(forbidden_returned(run)),
        ms_p50=percentile(latencies, 0.5),
        ms_p95=percentile(latencies, 0.95),
        degraded=run.degraded(),
        queries=queries,
        ranked=RANKED[run.judged.unit if run.judged else None],
    )


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


def _query_report(answered: Answered, values: Mapping[str, dict[str, float]], cutoff: int) -> QueryReport:
    query = answered.query
    documents = documents_within(answered.passages, cutoff)
    return QueryReport(
        query.id, query.subject, query.query, query.tags, values.get(query.id, {}), documents, answered.ms,
        answered.degraded,
    )  # fmt: skip


def _slice(queries: Iterable[QueryReport]) -> Slice:
    scored = [query.values for query in queries if query.values]
    return Slice(len(scored), mean_values(scored))


# --- the page of text -----------------------------------------------------------------------------------------------


def _head(report: RunReport) -> str:
    subjects = len({query.subject for query in report.queries})
    return (
        f"{_line(report.golden)}: {len(report.queries)} questions of {subjects} principals, mode {report.mode}; "
        f"{report.overall.queries} have a relevant document and count below; ranked are {report.ranked}"
    )


def _grid(report: RunReport) -> str:
    if not report.overall.queries:
        return "No question has a relevant document: there is nothing to average."
    means = report.overall.measures
    rows = [[str(m), *(f"{means[str(m @ k)]:.3f}" for k in report.cutoffs)] for m in MEASURES]
    return _table([["", *(f"@{k}" for k in report.cutoffs)], *rows])


def _tags(report: RunReport) -> str:
    names = [str(measure @ report.cutoffs[-1]) for measure in MEASURES]
    scored = {tag: each for tag, each in report.tags.items() if each.queries}
    rows = [[_line(tag), str(s.queries), *(f"{s.measures[n]:.3f}" for n in names)] for tag, s in scored.items()]
    return _table([["tag", "questions", *names], *rows]) if rows else ""


def _worst(report: RunReport) -> str:
    """The lowest nDCG at the largest cutoff; a perfect answer is never among them."""
    name = str(nDCG @ report.cutoffs[-1])
    below = sorted((query.values[name], query.id, query) for query in report.queries if query.values.get(name, 1.0) < 1)
    rows = [[f"{value:.3f}", _line(query.id), _line(query.subject), _line(query.query)] for value, _, query in below]
    return _table([[name, "worst", "", ""], *rows[:WORST]], left=(1, 2, 3)) if rows else ""


def _service(report: RunReport) -> str:
    lines = [f"latency: p50 {report.ms_p50:.0f} ms, p95 {report.ms_p95:.0f} ms"]
    lines += [f"degraded: {number} answers went without {stage}" for stage, number in sorted(report.degraded.items())]
    return "\n".join(lines)


def _forbidden(report: RunReport) -> str:
    leaks = report.forbidden_returned
    lines = [f"forbidden documents returned: {len(leaks)} of {report.forbidden_judged} judged"]
    for leak in leaks:
        lines.append(f"  {_line(leak.subject)} was given {_line(leak.document)} at rank {leak.rank} ({leak.query_id})")
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns under each other: figures to the right, those in `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip()[:WIDTH])
    return "\n".join(lines)


def _line(text: str) -> str:
    """The text on one line, without what would steer the terminal."""
    return textwrap.shorten("".join(c if c.isprintable() else " " for c in text), 70, placeholder="…")
