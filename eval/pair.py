"""Two runs of one golden set, side by side: which measures differ beyond chance, which questions moved, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from core.errors import Invalid
from eval import exchange
from eval.bootstrap import Estimate, estimates
from eval.chance import detectable, holm, randomisation_p
from eval.golden import GoldenSet
from store import golden, runs
from store.pool import Store, writing
from store.runs import StoredRun, StoredStages

LEGS = ("dense", "lexical")
SAME = 1e-9  # values closer than this are a tie


@dataclass(frozen=True, slots=True)
class Side:
    """A kept run with what was measured of each question."""

    run: StoredRun
    golden: GoldenSet
    values: Mapping[str, Mapping[str, float]]
    stages: Mapping[str, Mapping[str, StoredStages]]  # question → document → where it stood


@dataclass(frozen=True, slots=True)
class Row:
    """One measure in both runs."""

    name: str
    before: float
    after: float
    change: Estimate  # paired by question, with the 95 % interval
    p: float  # of a two-sided randomisation test
    p_holm: float  # the same, corrected for all the measures of the table
    wins: int
    losses: int
    ties: int
    detectable: float  # the least difference that these questions find with 80 %


@dataclass(frozen=True, slots=True)
class Moved:
    """A question whose value changed, and what became of its documents."""

    query_id: str
    subject: str
    query: str
    before: float
    after: float
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A."""

    before: str
    after: str
    questions: int
    main: str  # the measure that says which questions moved
    rows: tuple[Row, ...]
    changed: dict[str, tuple[Any, Any]]  # of the configuration
    moved: tuple[Moved, ...]  # the largest losses first, the largest gains last
    deltas: tuple[float, ...]  # of the main measure, by question, ascending


def side(store: Store, owner: UUID, name: str) -> Side:
    """The latest finished run of that name, or of that id. Raises NotFound."""
    with writing(store) as conn:
        run = runs.named(conn, owner, name)
        row = golden.by_id(conn, owner, run.golden_id)
        questions = exchange.from_lines(row.name, row.digest, golden.lines(conn, row.id))
        stages: dict[str, dict[str, StoredStages]] = {}
        for each in runs.stages(conn, run.id):
            stages.setdefault(each.query_id, {})[each.external_id] = each
        return Side(run, questions, runs.values(conn, run.id), stages)


def compare(before: Side, after: Side, main: str | None = None) -> Comparison:
    """The second run against the first. Raises Invalid when they do not answer the same questions."""
    if before.run.golden_id != after.run.golden_id or before.values.keys() != after.values.keys():
        raise Invalid(
            f"{before.run.name} is a run of {before.run.config['golden']}, {after.run.name} of "
            f"{after.run.config['golden']}: only runs of one version of a golden set compare"
        )
    queries = list(before.values)
    names = [name for name in _names(before) if name in _names(after)]
    if not names:
        raise Invalid("the two runs have no measure in common: run one again with the other's `--k`")
    main = main or _main(names)
    if main not in names:
        raise Invalid(f"the two runs do not both have {main}: choose from {', '.join(names)}")
    pairs = {name: [(before.values[q][name], after.values[q][name]) for q in queries] for name in names}
    p_values = {name: randomisation_p([b - a for a, b in pair]) for name, pair in pairs.items()}
    corrected = holm(p_values)
    changes = estimates({name: [b - a for a, b in pair] for name, pair in pairs.items()})
    rows = tuple(row_of(name, pair, changes[name], p_values[name], corrected[name]) for name, pair in pairs.items())
    return Comparison(
        before.run.name, after.run.name, len(queries), main, rows, _changed(before.run.config, after.run.config),
        _moved(before, after, main), tuple(sorted(b - a for a, b in pairs[main])),
    )  # fmt: skip


def order(name: str) -> tuple[str, int]:
    """What measures are sorted by: name, then cutoff."""
    base, _, cutoff = name.partition("@")
    return base.lower(), int(cutoff) if cutoff.isdecimal() else 0


def shown(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(each)}" for key, each in sorted(value.items()))
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def _names(of: Side) -> list[str]:
    rows = list(of.values.values())
    return sorted((name for name in rows[0] if all(name in row for row in rows)), key=order) if rows else []


def _main(names: Sequence[str]) -> str:
    return next(
        (name for name in names if name == "nDCG@10"), next((n for n in names if n.startswith("nDCG")), names[0])
    )


def row_of(name: str, pair: Sequence[tuple[float, float]], change: Estimate, p: float, p_holm: float) -> Row:
    """A measure in both runs, by the pairs of its values."""
    changes = np.array([after - before for before, after in pair])
    return Row(
        name, float(np.mean([a for a, _ in pair])), float(np.mean([b for _, b in pair])),
        change, p, p_holm,
        int((changes > SAME).sum()), int((changes < -SAME).sum()), int((np.abs(changes) <= SAME).sum()),
        detectable(float(changes.std(ddof=1)) if len(changes) > 1 else 0.0, len(changes)),
    )  # fmt: skip


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _moved(before: Side, after: Side, main: str) -> tuple[Moved, ...]:
    moved = []
    for query in before.golden.queries:
        if query.id in before.values:
            old, new = before.values[query.id][main], after.values[query.id][main]
            if abs(new - old) > SAME:
                reasons = tuple(_reasons(before.stages.get(query.id, {}), after.stages.get(query.id, {})))
                moved.append(Moved(query.id, query.subject, query.query, old, new, reasons))
    return tuple(sorted(moved, key=lambda each: (each.after - each.before, each.query_id)))


def _reasons(before: Mapping[str, StoredStages], after: Mapping[str, StoredStages]) -> list[str]:
    told = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            seen = "not to be seen by the asker in the first run" if old is None else "not to be seen in the second"
            told.append(f"{name}: {seen}")
        elif old.answer != new.answer:
            told.append(f"{name}: {blame(old, new)}")
    return told


def blame(old: StoredStages, new: StoredStages) -> str:
    """Why a document's rank in the answer changed: the first stage that moved it, and the ranks in all that did."""
    down = _fell(old.answer, new.answer)
    legs = [leg for leg in LEGS if _moves(getattr(old, leg), getattr(new, leg), down)]
    if _moves(old.fused, new.fused, down):
        cause = " and ".join(f"the {leg} leg" for leg in legs) if legs else "the fusion"
    elif new.answer is None and new.fused is not None:
        cause = "reranking and assembly, behind the fusion,"
    else:
        cause = "the reranking"
    ranks = [
        f"{stage} {_rank(getattr(old, stage))} → {_rank(getattr(new, stage))}"
        for stage in (*LEGS, "fused", "answer")
        if getattr(old, stage) != getattr(new, stage)
    ]
    verb = "lost it" if new.answer is None else "found it" if old.answer is None else "moved it"
    return f"{cause} {verb} ({', '.join(ranks)})"


def _fell(old: int | None, new: int | None) -> bool:
    return old is not None and (new is None or new > old)


def _moves(old: int | None, new: int | None, down: bool) -> bool:
    return _fell(old, new) if down else _fell(new, old)


def _rank(rank: int | None) -> str:
    return "none" if rank is None else str(rank)
