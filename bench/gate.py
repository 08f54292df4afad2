"""Does the gate catch losses, and leave neutral changes alone? Questions of real runs, drawn again and again.

CITADEL_STATE=… python -m bench.gate scifact/ cranfield/ …

Runs each collection with eleven weights of the dense leg, with and without reranking (`citadel eval run`, whose legs
are asked once). Each pair of runs, the worse against the better, gives real differences by question. Moved to a mean of
-0.03 they are a true loss of three points, as skewed as that loss is; with the two runs swapped at random at each
question they are a neutral change. Sets of 300 questions are drawn from them 10,000 times. The promise, 95 % of losses
caught and 5 % of neutral changes stopped, is for pairs of a deviation of at most 0.15.
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
from eval.gate import ALPHA, LOSS, Floats, share_failed

QUESTIONS, MAX_DROP, MAIN = 300, 0.01, "nDCG@10"
WIDEST = 0.15  # paired standard deviation up to which the promise holds
RESAMPLES = 10_000
WEIGHTS = [step / 10 for step in range(11)]


def shares(losing: Floats, resamples: int = RESAMPLES) -> dict[str, float]:
    """How often the gate fails a loss of three points and a neutral change, and a mean drop alone the latter."""
    drawing = {"questions": QUESTIONS, "resamples": resamples}
    return {
        "deviation": float(losing.std(ddof=1)),
        "caught": share_failed(losing - losing.mean() - LOSS, MAX_DROP, **drawing),
        "alarms": share_failed(losing, MAX_DROP, swapped=True, **drawing),
        "alarms by the mean alone": share_failed(losing, MAX_DROP, 0.5, swapped=True, **drawing),
    }


def pairs(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """The worse of each pair of runs against the better."""
    found = {}
    for pair in combinations(values, 2):
        worse, better = sorted(pair, key=lambda name: float(values[name].mean()))
        if np.any(values[worse] != values[better]):
            found[f"{worse} against {better}"] = values[worse] - values[better]
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
            of = {f"{folder}: {name}": shares(d) for name, d in pairs(run_values(folder, environment)).items()}
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
        "alarms by the mean alone": max(r["alarms by the mean alone"] for r in rows.values()),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
