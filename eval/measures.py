"""P@k, R@k, nDCG@k and RR@k of a run, and the forbidden documents that it returned.

The names and values are those of ir-measures, which calls trec_eval's code (RR@k: MS MARCO's). Grades are the gains,
discounted by log2(rank + 1); a document that nobody judged counts as not relevant; P@k divides by k even when fewer
documents came; a question without an answer scores 0. Of a collection the documents or the judged passages are ranked
(`eval/judged.py`), of any other golden set the documents of the first k passages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import ir_measures
from ir_measures import RR, Measure, P, Qrel, R, ScoredDoc, nDCG

from core.records import Citation, Place
from eval.run import Answered, Run

Values = Mapping[str, float]  # measure name, as ir-measures writes it → value

MEASURES = (P, R, nDCG, RR)


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


def query_values(run: Run) -> dict[str, dict[str, float]]:
    """Every measure at every cutoff, by question id; questions without a relevant document have no values."""
    values: dict[str, dict[str, float]] = {a.query.id: {} for a in run.answers if a.query.answerable()}
    qrels = _qrels(run)
    for cutoff in run.cutoffs if qrels else ():
        for metric in ir_measures.iter_calc(_measures(cutoff), qrels, _ranking(run, cutoff)):
            values[metric.query_id][str(metric.measure)] = float(metric.value)
    # A question whose judged spans lie in no chunk has no qrel, and nothing that answers it.
    nothing = {str(measure): 0.0 for cutoff in run.cutoffs for measure in _measures(cutoff)}
    return {query_id: {**nothing, **found} for query_id, found in values.items()}


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


def _measures(cutoff: int) -> list[Measure]:
    return [measure @ cutoff for measure in MEASURES]


def _qrels(run: Run) -> list[Qrel]:
    grades = {a.query.id: a.query.gains() for a in run.answers if a.query.answerable()}
    judged = grades if run.judged is None else run.judged.grades
    return [Qrel(query, key, grade) for query, of in judged.items() for key, grade in of.items()]


def _ranking(run: Run, cutoff: int) -> list[ScoredDoc]:
    """The run as trec_eval reads it. It orders equal scores by name, so each score is minus the rank."""
    return [
        ScoredDoc(answered.query.id, key, float(-rank))
        for answered in run.answers
        for rank, key in enumerate(_keys(run, answered, cutoff))
    ]


def _keys(run: Run, answered: Answered, cutoff: int) -> Sequence[str]:
    if run.judged is None:
        return documents_within(answered.passages, cutoff)
    return run.judged.ranking(Place(p.external_id, p.start, p.end) for p in answered.passages)


def _leaks(answered: Answered) -> list[Leak]:
    first: dict[str, int] = {}
    for rank, passage in enumerate(answered.passages, start=1):
        first.setdefault(passage.external_id, rank)
    query = answered.query
    return [Leak(query.id, query.subject, each, first[each]) for each in query.forbidden if each in first]
