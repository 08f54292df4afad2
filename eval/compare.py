"""Legs, fusions and rerankers over the same questions, in one table with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ir_measures
from ir_measures import Measure, P, Qrel, R, ScoredDoc, nDCG

from core.records import Fusion, Mode, Place
from eval.bootstrap import Estimate, difference, estimate
from eval.judged import Judged, Unit
from eval.legs import LEGS, Answers, ordered
from retrieval.fuse import fuse
from retrieval.legs import POOL

MAIN = nDCG @ 10
OWN, THEN = ", the tenant's", ", then "  # in a row's name: of the tenant's own fusion, and before a reranker's
MEASURES: tuple[Measure, ...] = (MAIN, R @ 50, P @ 5)

Rankings = Mapping[str, Sequence[Place]]  # question id → passages, best first


@dataclass(frozen=True, slots=True)
class Row:
    """One way to answer, over all the questions."""

    name: str
    measures: dict[str, Estimate]  # name, as ir-measures writes it → mean and interval
    gain: Estimate | None  # nDCG@10 minus the best single leg's, paired by question; None for that leg itself
    over: Estimate | None = None  # of a reranker: nDCG@10 minus that of the same fusion without it


@dataclass(frozen=True, slots=True)
class Table:
    """A collection's rows; the first two are the legs."""

    collection: str
    part: str
    chunk_chars: int | None  # the most that a chunk may have; None: as many as its tokens take
    unit: Unit
    documents: int
    passages: int  # in the index, as the questions' principal finds them
    questions: int  # with something relevant
    best_leg: str
    rows: tuple[Row, ...]


def leg_rankings(legs: Mapping[Mode, Answers], fusions: Sequence[tuple[str, Fusion]]) -> dict[str, Rankings]:
    """The rankings of both legs, and of each named fusion of them, as a hybrid search ranks its pool."""
    dense, lexical = (legs[leg] for leg in LEGS)
    places = Answers({}, {**dense.places, **lexical.places})
    rankings: dict[str, Rankings] = {
        leg: {i: ordered(legs[leg], found) for i, found in legs[leg].found.items()} for leg in LEGS
    }
    for name, fusion in fusions:
        rankings[name] = {
            i: ordered(places, fuse(fusion, dense.leg("dense", i), lexical.leg("lexical", i))[:POOL])
            for i in dense.found
        }
    return rankings


def values_of(judged: Judged, rankings: Rankings, measures: Sequence[Measure] = MEASURES) -> dict[str, list[float]]:
    """Each measure's value for each question with something relevant, in the order of `judged`; ir-measures' values."""
    qrels = [Qrel(query, key, grade) for query, grades in judged.grades.items() for key, grade in grades.items()]
    run = [
        ScoredDoc(query, key, float(-rank))  # trec_eval orders by score, and equal scores by name
        for query in judged.grades
        for rank, key in enumerate(judged.ranking(rankings.get(query, ())))
    ]
    found = {(str(m.measure), m.query_id): float(m.value) for m in ir_measures.iter_calc(measures, qrels, run)}
    # A question whose every judged span lies in no chunk has no qrel, and nobody answers it: 0.
    return {str(m): [found.get((str(m), query), 0.0) for query in judged.grades] for m in measures}


def rows_of(judged: Judged, rankings: Mapping[str, Rankings]) -> tuple[str, tuple[Row, ...]]:
    """The best single leg by nDCG@10, and a row for each ranking."""
    values = {name: values_of(judged, ranking) for name, ranking in rankings.items()}
    main = str(MAIN)
    best = max(LEGS, key=lambda leg: sum(values[leg][main]))
    rows = []
    for name, of in values.items():
        gain = None if name == best else difference(of[main], values[best][main])
        under = next((values[other][main] for other in values if name.startswith(other.replace(OWN, "") + THEN)), None)
        over = None if under is None else difference(of[main], under)
        rows.append(Row(name, {measure: estimate(each) for measure, each in of.items()}, gain, over))
    return best, tuple(rows)


# --- shown ----------------------------------------------------------------------------------------------------------


def to_dict(table: Table) -> dict[str, Any]:
    """The table for JSON."""
    return asdict(table)


def to_text(table: Table) -> str:
    """The table for a terminal."""
    cells = _cells(table)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([f"{table.collection}, {table.part}: {_head(table)}", *lines])


def to_markdown(table: Table) -> str:
    """The table for a page."""
    head, *rows = _cells(table)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join([f"## {table.collection}, {table.part}", "", _head(table), "", *lines, "", _verdict(table)])


def summary_markdown(tables: Sequence[Table]) -> str:
    """On how many tables each way to answer differs beyond chance, and what therefore does not help."""
    names = list(dict.fromkeys(row.name for table in tables for row in table.rows))
    of = {name: [(t, r) for t in tables for r in t.rows if r.name == name] for name in names}
    lines = ["| | better than the better leg | no difference beyond chance | worse |", "| --- | --- | --- | --- |"]
    for name, rows in of.items():
        gains = [(table, row.gain) for table, row in rows if row.gain]
        better = [table for table, gain in gains if gain.low > 0]
        worse = [table for table, gain in gains if gain.high < 0]
        same = [table for table, _ in gains if table not in better and table not in worse]
        lines.append(f"| {name} | {_named(better)} | {_named(same)} | {_named(worse)} |")
    return "\n".join(["## In short", "", *lines, "", *_reranked(of)])


def _reranked(of: Mapping[str, Sequence[tuple[Table, Row]]]) -> list[str]:
    """What each reranker adds to the fusion before it."""
    told = []
    for name, rows in of.items():
        over = [(table, row.over) for table, row in rows if row.over]
        helped = [table for table, gain in over if gain.low > 0]
        hurt = [table for table, gain in over if gain.high < 0]
        if over:
            told.append(f"Against the same fusion without it, `{name.partition(THEN)[2]}` is better on "
                        f"{_named(helped)}; worse on {_named(hurt)}; elsewhere there is no difference beyond chance.",
                        )  # fmt: skip
    return told


def _named(tables: Sequence[Table]) -> str:
    return ", ".join(f"{table.collection} {table.part}" for table in tables) or "none"


def _verdict(table: Table) -> str:
    """Which rows are more than chance away from the best leg."""
    above = [row.name for row in table.rows if row.gain and row.gain.low > 0]
    below = [row.name for row in table.rows if row.gain and row.gain.high < 0]
    told = [f"{what}: {'; '.join(names) or 'none'}." for what, names in (("Better", above), ("Worse", below))]
    over = [
        f" {row.name} against the same fusion without it: {_shown(row.over, '+')}." for row in table.rows if row.over
    ]
    return f"Beyond chance, against {table.best_leg}. {' '.join(told)}{''.join(over)}"


def _head(table: Table) -> str:
    size = f" of at most {table.chunk_chars} characters" if table.chunk_chars else ""
    relevant = "documents" if table.unit == "document" else "passages that overlap a judged span"
    return (
        f"{table.questions} questions, {table.documents} documents in "
        f"{table.passages} passages{size}; relevant are {relevant}; best single leg: {table.best_leg}."
    )


def _cells(table: Table) -> list[list[str]]:
    names = [str(measure) for measure in MEASURES]
    rows = [
        [row.name, *(_shown(row.measures[name]) for name in names), _shown(row.gain, "+") if row.gain else "–"]
        for row in table.rows
    ]
    return [["", *names, f"{MAIN} minus best leg's"], *rows]


def _shown(value: Estimate, sign: str = "") -> str:
    return f"{value.mean:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"
