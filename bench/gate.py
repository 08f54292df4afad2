"""Does the gate catch losses, and leave neutral changes alone? Questions of real runs, drawn again and again.

CITADEL_STATE=… python -m bench.gate scifact/ cranfield/ …

Runs each collection with eleven weights of the dense leg, with and without reranking (`citadel eval run`, whose legs
are asked once). Each pair of runs gives real differences by question: taken to a mean of 0 they are a neutral change,
less 0.03 a true loss of three points. For sets of 300 questions drawn from them 1,000 times it prints how often the
gate fails each. The promise, 95 % of losses and 5 % of neutral changes, is for pairs of a deviation of at most 0.15.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from click.testing import CliRunner

from cli.main import citadel
from cli.scratch import standing
from core.config import environment_of, load_settings
from eval.gate import ALPHA, LOSS, RESAMPLES, Floats, share_failed

QUESTIONS, MAX_DROP, MAIN = 300, 0.01, "nDCG@10"
WIDEST = 0.15  # paired standard deviation up to which the promise holds
WEIGHTS = [step / 10 for step in range(11)]


def shares(differences: Floats, seed: int, questions: int = QUESTIONS) -> dict[str, float]:
    """How often the gate fails a neutral change and a loss of three points, and a mean drop alone the first."""
    centred = differences - differences.mean()
    drawn = centred[np.random.default_rng(seed).integers(0, len(centred), (RESAMPLES, questions))]
    return {
        "deviation": float(centred.std(ddof=1)),
        "caught": share_failed(centred - LOSS, MAX_DROP, questions=questions, seed=seed),
        "alarms": share_failed(centred, MAX_DROP, questions=questions, seed=seed),
        "alarms without the interval": float((drawn.mean(axis=1) < -MAX_DROP).mean()),
    }


def pairs(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """The differences of each pair of runs that differ, in both directions."""
    found = {}
    for one, other in combinations(values, 2):
        if np.any(values[one] != values[other]):
            found[f"{other} against {one}"] = values[other] - values[one]
            found[f"{one} against {other}"] = values[one] - values[other]
    return found


def run_values(folder: str, environment: Mapping[str, str]) -> dict[str, Floats]:
    """nDCG@10 by question, of each way to answer."""
    found = {}
    for weight in WEIGHTS:
        for rerank in ("none", "late"):
            name = f"{weight:g}{'+late' if rerank == 'late' else ''}"
            command = [
                "eval",
                "run",
                folder,
                "--name",
                f"gate {name}",
                "--dense-weight",
                str(weight),
                "--rerank",
                rerank,
            ]
            done = CliRunner().invoke(citadel, [*command, "--json"], env=dict(environment), catch_exceptions=False)
            report = json.loads(done.stdout)
            found[name] = np.array([query["values"][MAIN] for query in report["queries"] if query["values"]])
    return found


def main(folders: Sequence[str]) -> None:
    """Print the hardest pairs of each collection, and what holds over all of them."""
    rows: dict[str, dict[str, float]] = {}
    with standing(load_settings(os.environ)) as running:
        environment = {key: value for key, value in environment_of(running).items() if value}
        for folder in folders:
            of = {f"{folder}: {name}": shares(d, 1) for name, d in pairs(run_values(folder, environment)).items()}
            within = {name: row for name, row in of.items() if row["deviation"] <= WIDEST}
            rows |= within
            print(f"{folder}: {len(of)} pairs, {len(within)} of a deviation of at most {WIDEST}")
            for name, row in sorted(within.items(), key=lambda item: item[1]["caught"])[:4]:
                print(f"  {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    kept = [row for row in rows.values() if row["caught"] >= 0.95 and row["alarms"] <= 0.05]
    print(json.dumps({
        "alpha": ALPHA, "pairs": len(rows), "hold both": len(kept),
        "caught": [min(r["caught"] for r in rows.values()), float(np.mean([r["caught"] for r in rows.values()]))],
        "alarms": [max(r["alarms"] for r in rows.values()), float(np.mean([r["alarms"] for r in rows.values()]))],
        "alarms without the interval": max(r["alarms without the interval"] for r in rows.values()),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
