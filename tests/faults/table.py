"""What a run came to, and whether each promise was held."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.run import Run, Size, follow
from tests.faults.stack import stack

Row = tuple[str, Any, str, bool]  # what, how many, what is told of it, held

SCHEDULED = """
    SELECT count(*), count(DISTINCT date_trunc('minute', due_at)) FROM jobs j JOIN sources s ON s.id = j.source_id
    WHERE s.name = 'clock' AND due_at = date_trunc('minute', due_at)
"""
ACCEPTED = "SELECT state, count(*) FROM jobs WHERE kind = 'index' GROUP BY 1"


def outcome_of(state: Path, size: Size) -> dict[str, Any]:
    """A run of that size in that folder."""
    with stack(state, size.processes, size.slow_s, size.lease_s) as made:
        run = Run(made, size)
        verdict = follow(run)
        scheduled = run.asked(lambda conn: conn.execute(SCHEDULED).fetchone())
        states = run.asked(lambda conn: dict(conn.execute(ACCEPTED).fetchall()))
        return {
            "size": asdict(size), "deaths": run.stack.plan.spent(), "small_disk": made.small_disk,
            "accepted": sum(len(versions) for versions in run.ledger.accepted.values()), "jobs": states,
            "files": len(run.files), "refused": dict(Counter(run.ledger.refused)), "scheduled": scheduled,
            "attempts": {name: made.plan.counted(name) for name in ("done", "skipped", "waits", "retry", "lost")},
            "broken": run.broken, **run.told, **asdict(verdict),
        }  # fmt: skip


def rows_of(told: dict[str, Any]) -> list[Row]:
    """The table: each fault with how often it was, then what must be 0."""
    size, deaths = told["size"], sum(told["deaths"].values())
    slow, poison = told["slow"], told["poison"]
    once = all(each == {"state": "done", "attempts": 1, "error": None} for each in slow)
    disk = f"{told.get('refused_on_full_disk')} submissions refused, none lost"
    rows: list[Row] = [
        ("kill -9 of a worker's child, at a point", deaths, f"{len(told['deaths'])} points", deaths >= size["deaths"]),
        ("kill -9 of a whole worker", size["workers_killed"], f"{size['workers']} workers", True),
        ("kill -9 of a dispatcher", 2, "", True),
        ("FLUSHALL of Redis", size["flushes"], "", True),
        ("kill -9 and restart of Redis", size["redis_restarts"], "", True),
        ("kill -9 and restart of Postgres", size["postgres_restarts"], f"{told['reader_outages']} reads refused", True),
        ("blob store without room", size["disks_full"] if told["small_disk"] else 0,
         disk if told["small_disk"] else "left out: mounting a tmpfs needs root", True),
        ("resets of every broker connection", size["resets"],
         f"{told['connections_reset']} connections; work done {told['resumed_s']} s later", told["resumed_s"] <= 30),
        ("messages delivered again", told["redelivered"],
         f"{len(slow)} tasks of {size['slow_s']:.0f} s, visibility 5 s: each done in one attempt",
         not slow or (told["redelivered"] >= 1 and once)),
        ("poison document", 1, f"{poison['state']} after {poison['attempts']} attempts: {poison['error']}",
         (poison["state"], poison["attempts"], poison["error"]) == ("quarantined", 3, "worker_lost")),
        ("refreshes on schedule, 3 beats", told["scheduled"][0], f"one a minute; in {told['seconds']} s",
         told["scheduled"][0] == told["scheduled"][1] >= int(told["seconds"] // 60) - 2),
        ("versions accepted", told["accepted"], f"and {told['files']} files; {told['jobs']}", told["accepted"] > 0),
        ("quarantined by the kills, then retried", told["retried"], "", True),
        ("reads while it went on", told["reads"], f"and {told['searches']} searches", told["reads"] > 0),
    ]  # fmt: skip
    for name in ("lost", "twice", "half", "broken", "failed", "left_open"):
        found = told[name]
        count = found if isinstance(found, int) else len(found)
        rows.append((NAMES[name], count, str(found)[:300] if count else "", count == 0))
    return [*rows, ("seconds", told["seconds"], "", told["seconds"] <= 1800)]


NAMES = {
    "lost": "accepted versions lost",
    "twice": "versions published twice",
    "half": "half-read versions",
    "broken": "threads of the harness that died",
    "failed": "jobs failed",
    "left_open": "jobs left open",
}
