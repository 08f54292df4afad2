"""Did it get worse since? A scheduled run against a pinned baseline, and against the runs before it.

Against the baseline by the gate's own statistics (eval/gate.py): the mean fell by more than is allowed, and by more
than chance. Against the schedule's last runs by a one-sided cumulative sum (CUSUM; Page, Biometrika 1954) with what is
allowed as the shift to find: many small losses that no single run shows add up. A forbidden document is always an
alarm, and so is what keeps a run from being compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import Invalid
from eval.gate import Limits, gate
from eval.pair import Side
from store.schedules import Check

RUNS = 30  # of a schedule that are looked back on
SLACK = 0.5  # of the allowed drop: a loss below it never adds up
DECISION = 2.0  # allowed drops: one of 1 is found by the fifth run, one of 2.5 by the second


@dataclass(frozen=True, slots=True)
class Past:
    """What a run is held against."""

    baseline: Side | None  # of the same version of the golden set
    means: Sequence[Mapping[str, float]]  # of the schedule's earlier runs over that version, oldest first
    lacking: str = ""  # why there is no baseline though one is wanted


def checks_of(run: Side, past: Past, max_drop: Mapping[str, float]) -> tuple[Check, ...]:
    """Every count, those of measures in the order of their limits."""
    told: Mapping[str, Any] = run.run.summary or {}
    forbidden = int(told["forbidden"]["count"])
    found = [Check("forbidden", forbidden, forbidden > 0, f"{forbidden} forbidden documents returned")]
    if past.lacking:
        found.append(Check("baseline", 1, True, past.lacking))
    if told["degraded"]:
        stages = ", ".join(f"{count} without {stage}" for stage, count in sorted(told["degraded"].items()))
        number = sum(told["degraded"].values())
        return (*found, Check("degraded", number, True, f"not compared: answers went {stages}"))
    return (*found, *(_measure(name, drop, run, past, told["measures"]) for name, drop in max_drop.items()))


def _measure(name: str, drop: float, run: Side, past: Past, means: Mapping[str, float]) -> Check:
    if name not in means:
        return Check(name, 0, True, f"the run has no {name}")
    by_gate, gated = _gated(name, drop, run, past.baseline)
    earlier = [each[name] for each in past.means if name in each]
    first = past.baseline.run.summary["measures"].get(name) if past.baseline and past.baseline.run.summary else None
    target = first if first is not None else next(iter(earlier), means[name])
    total = cusum([*earlier, means[name]], target, SLACK * drop)
    alarm = total > DECISION * drop and means[name] < target
    summed = f"CUSUM {total:.4f} of at most {DECISION * drop:g} over {len(earlier) + 1} runs, from {target:.3f}"
    return Check(name, means[name], by_gate or alarm, "; ".join(part for part in (gated, summed) if part))


def _gated(name: str, drop: float, run: Side, baseline: Side | None) -> tuple[bool, str]:
    if baseline is None:
        return False, ""
    try:
        (check,) = gate(baseline.values, run.values, 0, Limits({name: drop}, forbidden=None)).checks
    except Invalid as error:
        return True, f"not held against {baseline.run.name}: {error}"
    return not check.passed, f"against {baseline.run.name}: {check.told}"


def cusum(values: Sequence[float], target: float, slack: float) -> float:
    """The lower cumulative sum after the last value: how far the values fell below the target, less the slack each."""
    total = 0.0
    for value in values:
        total = max(0.0, total + (target - value) - slack)
    return total
