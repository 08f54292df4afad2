"""May a change go in? Fails when the loss is larger than allowed and more than chance, and tells what it would miss.

A change fails on a measure when (1) the mean over the paired questions dropped by more than what is allowed, and (2)
the drop is no accident: the one-sided Student interval of the paired differences, at ALPHA shared among the gated
measures, lies below 0. (1) alone stops every third neutral change of a small set; (2) alone stops, on a large set,
losses that nobody minds. Measured by `python -m bench.gate`; docs/decisions/0025.

With `Limits.proven` the burden is the candidate's: a measure fails unless the low end of that interval lies above what
is allowed. So another embedding profile is promoted; docs/decisions/0024.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from core.errors import Invalid
from eval.bootstrap import SEED
from eval.chance import NORMAL, student_quantile

# Between 3.44 %, below which a loss of 3 points on 300 questions with a paired deviation of 0.15 is caught less often
# than 95 % of the time (Φ(0.03·√300/0.15 - 1.82) = 0.95), and 5 %, above which there are more false alarms than told.
ALPHA = 0.04
LEAST = 10  # questions; with fewer no interval is worth its name
LOSS = 0.03  # whose power is told
RESAMPLES = 1_000

Floats = npt.NDArray[np.float64]
Values = Mapping[str, Mapping[str, float]]  # question → measure → value


@dataclass(frozen=True, slots=True)
class Limits:
    """What a change may cost."""

    max_drop: Mapping[str, float]  # measure → how far its mean may fall
    forbidden: int | None = 0  # forbidden documents that may come back; None: not looked at
    proven: bool = False  # the candidate has to show that it lost no more; else its loss has to be shown
    candidates: int = 1  # of which any that passes is taken: they share the risk of taking one that is no better


@dataclass(frozen=True, slots=True)
class Check:
    """One limit, and whether it holds."""

    name: str  # a measure, or `forbidden`
    passed: bool
    told: str
    questions: int = 0
    change: float | None = None  # of the mean
    bound: float | None = None  # the end of the change's interval that decides: the upper, or where proven, the lower
    power: float | None = None  # that a loss of 3 points would have failed here
    caught: float | None = None  # the least loss that fails with 95 % probability
    alarms: float | None = None  # that no change at all would have failed


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(check.passed for check in self.checks)


def gate(baseline: Values, candidate: Values, forbidden: int, limits: Limits) -> Verdict:
    """Two runs of one golden set against the limits; `forbidden` is what the candidate returned of it.

    Raises Invalid when the runs do not answer the same questions, or lack a measure.
    """
    if baseline.keys() != candidate.keys():
        raise Invalid("the two runs do not measure the same questions: run the baseline again on this golden set")
    checks = [_measure(name, baseline, candidate, limits) for name in limits.max_drop]
    if limits.forbidden is not None:
        told = f"{forbidden} forbidden documents returned, at most {limits.forbidden} allowed"
        checks.append(Check("forbidden", forbidden <= limits.forbidden, told))
    return Verdict(tuple(checks))


def _measure(name: str, baseline: Values, candidate: Values, limits: Limits) -> Check:
    rows = [(candidate[query], baseline[query]) for query in baseline]
    if any(name not in row for pair in rows for row in pair):
        raise Invalid(f"a run has no {name}: measure both with `--measures {name}`")
    differences = np.array([new[name] - old[name] for new, old in rows])
    if len(differences) < LEAST:
        raise Invalid(f"{len(differences)} questions are too few to gate on: judge at least {LEAST}")
    max_drop, alpha = limits.max_drop[name], ALPHA / len(limits.max_drop) / limits.candidates
    change, sample = float(differences.mean()), differences[None, :]
    if limits.proven:
        low = -float(upper_bounds(-sample, alpha)[0])
        told = f"{name} changed by {change:+.4f}, at least {low:+.4f}; it must show a drop of no more than {max_drop:g}"
        return Check(name, low >= -max_drop, told, len(differences), change, low)
    bound, failed = float(upper_bounds(sample, alpha)[0]), bool(failures(sample, max_drop, alpha)[0])
    told = f"{name} changed by {change:+.4f}, at most {bound:+.4f}; a drop of {max_drop:g} is allowed"
    found = Check(name, not failed, told, len(differences), change, bound)
    return _with_power(found, differences, max_drop, alpha) if differences.any() else found


def _with_power(found: Check, differences: Floats, max_drop: float, alpha: float) -> Check:
    """What the questions at hand can tell: without any difference, nothing."""
    losing = (differences - differences.mean()) * (1 if differences.mean() <= 0 else -1)  # as skewed as a loss is
    return replace(
        found,
        power=share_failed(losing - LOSS, max_drop, alpha),
        alarms=share_failed(differences, max_drop, alpha, swapped=True),
        caught=caught(float(differences.std(ddof=1)), len(differences), max_drop, alpha),
    )


def upper_bounds(samples: Floats, alpha: float = ALPHA) -> Floats:
    """[samples] the upper end of each sample's one-sided Student interval; `samples` is [samples, questions]."""
    questions = samples.shape[1]
    error = samples.std(axis=1, ddof=1) / math.sqrt(questions)
    return np.asarray(samples.mean(axis=1) + student_quantile(1 - alpha, questions - 1) * error, np.float64)


def failures(samples: Floats, max_drop: float, alpha: float = ALPHA) -> npt.NDArray[np.bool_]:
    """[samples] which of the samples of differences fail."""
    return np.asarray((samples.mean(axis=1) < -max_drop) & (upper_bounds(samples, alpha) < 0))


def share_failed(
    differences: Floats, max_drop: float, alpha: float = ALPHA, *, swapped: bool = False,
    questions: int | None = None, resamples: int = RESAMPLES,
) -> float:  # fmt: skip
    """How many of the sets that might as well have been asked fail: questions drawn with replacement.

    `swapped`: which of the two runs is the newer is drawn at each question too, so that neither is better.
    """
    chance, size = np.random.default_rng(SEED), (resamples, questions or len(differences))
    drawn = differences[chance.integers(0, len(differences), size)]
    if swapped:
        drawn = drawn * (chance.integers(0, 2, size) * 2 - 1)
    return float(failures(drawn, max_drop, alpha).mean())


def caught(deviation: float, questions: int, max_drop: float, alpha: float = ALPHA, power: float = 0.95) -> float:
    """The least true loss that fails with this probability (normal approximation)."""
    error = deviation / math.sqrt(questions)
    threshold = max(max_drop, student_quantile(1 - alpha, questions - 1) * error)
    return threshold + NORMAL.inv_cdf(power) * error


def to_junit(verdict: Verdict, baseline: str, candidate: str) -> str:
    """JUnit XML: a test case for each limit."""
    from xml.sax.saxutils import escape, quoteattr

    cases = []
    for check in verdict.checks:
        body = f"<system-out>{escape(check.told)}</system-out>"
        body += "" if check.passed else f"<failure message={quoteattr(check.told)}/>"
        cases.append(f"  <testcase classname={quoteattr(f'{candidate} against {baseline}')} "
                     f"name={quoteattr(check.name)}>{body}</testcase>")  # fmt: skip
    failed = sum(not check.passed for check in verdict.checks)
    head = f'<testsuite name="citadel eval gate" tests="{len(cases)}" failures="{failed}" errors="0">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>", ""])


def parse_limits(written: Sequence[str], forbidden: int | None) -> Limits:
    """Limits as `nDCG@10=0.01`. Raises Invalid."""
    found: dict[str, float] = {}
    for each in written:
        name, sign, drop = each.partition("=")
        try:
            found[name.strip()] = float(drop)
        except ValueError as error:
            raise Invalid(f"write a limit as nDCG@10=0.01, not {each!r}") from error
        if not sign or not name.strip() or not 0 <= found[name.strip()] < 1:
            raise Invalid(f"a limit lies between 0 and 1, such as nDCG@10=0.01; not {each!r}")
    return Limits(found, forbidden)
