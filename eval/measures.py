"""The measures of a run, and the forbidden documents that it returned.

The names and values are those of ir-measures, which calls trec_eval's code (RR@k: MS MARCO's). Grades are the gains,
discounted by log2(rank + 1); a document that nobody judged counts as not relevant, but for Bpref, which passes it over;
P@k divides by k even when fewer documents came; a question without an answer scores 0. Without a cutoff a measure is of
all that was asked for. Of a collection the documents or the judged passages are ranked
(`eval/judged.py`), of any other golden set the documents of the first k passages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import ir_measures
from ir_measures import AP, RR, Bpref, Measure, P, Qrel, R, ScoredDoc, Success, nDCG

from core.errors import Invalid
from core.records import Citation, Place
from eval.run import Answered, Run

Values = Mapping[str, float]  # measure name, as ir-measures writes it → value

MEASURES = (P, R, nDCG, RR)
CHOICE = (*MEASURES, AP, Success, Bpref)
UNJUDGED = "unjudged"  # of what came within the cutoff: the share that nobody judged. Not ir-measures'


@dataclass(frozen=True, slots=True)
class Leak:
    """A forbidden document in an answer."""

    query_id: str
    subject: str
    document: str  # external id
    rank: int  # of its first passage


def documents_within(passages: Sequence[Citation], cutoff: int) -> tuple[str, ...]:
    """The distinct documents of the first `cutoff` passages, best first.

    Cut, then deduplicate: an agent that asks for k passages reads k passages, and a second one of the same document
    takes the place of another document. Deduplicating first credits documents that it would never be given. On
    Cranfield by BM25 that raised P@5 from 0.288 to 0.303 with chunks of 160 words and from 0.219 to 0.281 with 40;
    where a document is one chunk, as in BEIR's own figures, the two are the same.
    """
    return tuple(dict.fromkeys(passage.external_id for passage in passages[:cutoff]))


def parse_measures(written: str) -> tuple[Measure, ...]:
    """Measures as ir-measures writes them, with commas between: `nDCG@10,AP@100,Bpref`. Raises Invalid."""
    return tuple(_parsed(part) for part in dict.fromkeys(part.strip() for part in written.split(",")) if part)


def _parsed(name: str) -> Measure:
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError) as error:
        raise Invalid(_unknown(name)) from error
    known = measure.NAME in {each.NAME for each in CHOICE} and not set(measure.params) - {"cutoff"}
    if not known or _cutoff(measure) == 0:
        raise Invalid(_unknown(name))
    return measure


def _unknown(name: str) -> str:
    return f"unknown measure {name[:40]!r}: choose from {', '.join(each.NAME for each in CHOICE)}, such as nDCG@10"


def default_measures(cutoffs: Iterable[int]) -> tuple[Measure, ...]:
    """P, R, nDCG and RR at each cutoff."""
    return tuple(measure @ cutoff for cutoff in cutoffs for measure in MEASURES)


def query_values(run: Run, measures: Sequence[Measure] | None = None) -> dict[str, dict[str, float]]:
    """Every measure, by question id; questions without a relevant document have no values.

    Without `measures` the default ones at the run's cutoffs.
    """
    wanted = default_measures(run.cutoffs) if measures is None else tuple(measures)
    values: dict[str, dict[str, float]] = {a.query.id: {} for a in run.answers if a.query.answerable()}
    qrels = _qrels(run)
    for cutoff in {_cutoff(measure) for measure in wanted} if qrels else ():
        of_cutoff = [measure for measure in wanted if _cutoff(measure) == cutoff]
        for metric in ir_measures.iter_calc(of_cutoff, qrels, _ranking(run, cutoff)):
            if metric.query_id in values:
                values[metric.query_id][str(metric.measure)] = float(metric.value)
    # A question whose judged spans lie in no chunk has no qrel, and nothing that answers it.
    nothing = {str(measure): 0.0 for measure in wanted}
    return {query_id: {**nothing, **found} for query_id, found in values.items()}


def unjudged(run: Run, cutoff: int) -> dict[str, float]:
    """Of each question's distinct answers within the cutoff, the share that nobody judged; 0 of an empty answer."""
    grades = {a.query.id: a.query.gains() for a in run.answers if a.query.answerable()}
    judged: Mapping[str, Mapping[str, int]] = grades if run.judged is None else run.judged.grades
    shares = {}
    for answered in run.answers:
        if answered.query.id in judged:
            keys = _keys(run, answered, cutoff)[:cutoff]
            shares[answered.query.id] = sum(key not in judged[answered.query.id] for key in keys) / max(1, len(keys))
    return shares


def mean_values(values: Iterable[Values]) -> dict[str, float]:
    """Each measure's arithmetic mean over the questions; empty when there are none, for there is no such mean."""
    rows = list(values)
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


def forbidden_returned(run: Run) -> list[Leak]:
    """Each (question, forbidden document) pair that came back, at whatever rank; empty is the only good value."""
    return [leak for answered in run.answers for leak in _leaks(answered)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest rank). `values` is not empty."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _cutoff(measure: Measure) -> int | None:
    found = measure.params.get("cutoff")
    return None if found is None else int(found)


def _qrels(run: Run) -> list[Qrel]:
    grades = {a.query.id: a.query.gains() for a in run.answers if a.query.answerable()}
    judged = grades if run.judged is None else run.judged.grades
    return [Qrel(query, key, grade) for query, of in judged.items() for key, grade in of.items()]


def _ranking(run: Run, cutoff: int | None) -> list[ScoredDoc]:
    """The run as trec_eval reads it. It orders equal scores by name, so each score is minus the rank."""
    return [
        ScoredDoc(answered.query.id, key, float(-rank))
        for answered in run.answers
        for rank, key in enumerate(_keys(run, answered, cutoff))
    ]


def _keys(run: Run, answered: Answered, cutoff: int | None) -> Sequence[str]:
    if run.judged is None:
        return documents_within(answered.passages, len(answered.passages) if cutoff is None else cutoff)
    return run.judged.ranking(Place(p.external_id, p.start, p.end) for p in answered.passages)


def _leaks(answered: Answered) -> list[Leak]:
    first: dict[str, int] = {}
    for rank, passage in enumerate(answered.passages, start=1):
        first.setdefault(passage.external_id, rank)
    query = answered.query
    return [Leak(query.id, query.subject, each, first[each]) for each in query.forbidden if each in first]
