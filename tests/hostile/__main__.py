"""`make hostile`: hostile files that were found, bombs, thousands of mutants; exits 1 when a promise breaks."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from random import Random

from core.errors import Unparseable
from tests.hostile import run

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_HEALTHY = (".md", ".txt", ".html", ".docx", ".pptx", ".xlsx", ".csv", ".eml", ".pdf")
_TYPED = {"parsed", *(error.code for error in Unparseable.__subclasses__())}
_LEAST_KEPT = 0.9


def main() -> int:
    """Run, print the table, and say what is broken."""
    asked = _arguments()
    cases = chain(
        run.found(asked.data / "hostile"), run.made(), run.mutated(asked.data / "documents", asked.seed, asked.mutated)
    )
    started = time.monotonic()
    done = Counter[str]()

    def told(ending: run.Ending) -> None:
        done[ending.outcome] += 1
        if done.total() % 250 == 0:
            print(f"{done.total()} files, {time.monotonic() - started:.0f} s: {dict(done)}", file=sys.stderr)

    thrown = run.throw(cases, asked.processes, told)
    endings, died = thrown.endings, thrown.died
    kept = _throughput(asked)
    broken = _broken(endings, died, kept)
    if asked.json:
        print(json.dumps(_report(endings, died, kept, broken)))
    else:
        _print(endings, died, kept)
        print("\n".join(broken) or "every file ended in a typed outcome in time, and no process died")
    return bool(broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.epilog = "example: python -m tests.hostile --mutated 500 --seed 7 --json"
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with `hostile` and `documents`")
    parser.add_argument("--mutated", type=int, default=5000, help="files to damage (5000)")
    parser.add_argument("--seed", type=int, default=1, help="of the damage; the same seed gives the same files (1)")
    parser.add_argument("--healthy", type=int, default=300, help="healthy files of the throughput measurement (300)")
    parser.add_argument("--processes", type=int, default=run.cores(), help="sandboxes at once (one a processor)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    if not (asked.data / "hostile").is_dir():
        parser.error(f"there is no folder {asked.data / 'hostile'}: name the folder of the real data with --data")
    return asked


def _throughput(asked: argparse.Namespace) -> dict[str, run.Throughput]:
    """Healthy documents beside hostile files as they are found, and beside bombs, each 1 %."""
    chance = Random(asked.seed)
    documents = [case for case in run.found(asked.data / "documents") if case.name.endswith(_HEALTHY)]
    healthy = [chance.choice(documents) for _ in range(asked.healthy)]
    found, made = list(run.found(asked.data / "hostile")), list(run.made())
    chance.shuffle(found)
    chance.shuffle(made)
    return {
        "found": run.throughput(healthy, found, asked.processes),
        "bombs": run.throughput(healthy, made, asked.processes),
    }


def _broken(endings: Sequence[run.Ending], died: int, kept: dict[str, run.Throughput]) -> list[str]:
    """What was promised and is not so."""
    broken = [f"{ending.group} {ending.name}: {ending.outcome}" for ending in endings if ending.outcome not in _TYPED]
    broken += [f"{ending.group} {ending.name}: took {ending.seconds:.1f} s" for ending in run.late(endings)]
    broken += [f"{died} of the sandboxes' processes died"] if died else []
    share = kept["found"].kept
    broken += [f"healthy throughput beside 1 % poison: {share:.0%}"] if share < _LEAST_KEPT else []
    return broken


def _report(
    endings: Sequence[run.Ending], died: int, kept: dict[str, run.Throughput], broken: Sequence[str]
) -> dict[str, object]:
    slowest = sorted(endings, key=lambda ending: -ending.seconds)[:10]
    return {
        "outcomes": run.tally(endings),
        "slowest": [asdict(ending) for ending in slowest],
        "crashed": [ending.name for ending in endings if ending.outcome == "parser_crashed"],
        "died": died,
        "throughput": {name: asdict(measured) | {"kept": measured.kept} for name, measured in kept.items()},
        "broken": broken,
    }


def _print(endings: Sequence[run.Ending], died: int, kept: dict[str, run.Throughput]) -> None:
    tallies = run.tally(endings)
    outcomes = sorted({outcome for counts in tallies.values() for outcome in counts})
    print(f"{'outcome':20}" + "".join(f"{group:>10}" for group in tallies))
    for outcome in outcomes:
        print(f"{outcome:20}" + "".join(f"{counts[outcome]:>10}" for counts in tallies.values()))
    slowest = max(ending.seconds for ending in endings)
    print(f"slowest {slowest:.1f} s of {run.LIMITS.wall_seconds:g} s allowed; processes that died: {died}")
    for name, measured in kept.items():
        print(f"healthy documents a second: {measured.alone:.0f}, beside 1 % {name}: {measured.beside:.0f} "
              f"({measured.kept:.0%}, {measured.poison} of them)")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
