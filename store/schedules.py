"""Evaluations that run by themselves: when, of what, held against what, and what each found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import Conflict
from store.pool import Conn, one_row

COLUMNS = """
    SELECT id, tenant_id, name, golden, schedule, timezone, baseline, cutoffs, measures, max_drop, next_due_at
    FROM eval_schedules
"""
ADD = """
    INSERT INTO eval_schedules (tenant_id, name, golden, schedule, timezone, baseline, cutoffs, measures, max_drop,
                                next_due_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
BY_NAME = COLUMNS + " WHERE tenant_id = %s AND name = %s"
BY_ID = COLUMNS + " WHERE id = %s"
ALL = COLUMNS + " WHERE tenant_id = %s ORDER BY name"
DUE = COLUMNS + " WHERE next_due_at <= now() FOR UPDATE SKIP LOCKED"
SET_DUE = "UPDATE eval_schedules SET next_due_at = %s WHERE id = %s"
REMOVE = "DELETE FROM eval_schedules WHERE tenant_id = %s AND name = %s"
ADD_RESULT = "INSERT INTO eval_results (run_id, tenant_id, schedule_id, checks) VALUES (%s, %s, %s, %s)"
LATEST = """
    SELECT DISTINCT ON (r.schedule_id) r.schedule_id, r.run_id, r.checks, r.at
    FROM eval_results r WHERE r.tenant_id = %s ORDER BY r.schedule_id, r.at DESC
"""
HISTORY = """
    SELECT e.summary -> 'measures' FROM eval_results r JOIN eval_runs e ON e.id = r.run_id
    WHERE r.schedule_id = %s AND e.golden_id = %s AND e.summary -> 'degraded' = '{}'
    ORDER BY e.finished_at DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a golden set is asked, and what its runs are held against."""

    id: UUID
    tenant_id: UUID
    name: str  # of its runs too
    golden: str  # a set's name, whose newest version is asked, or name@version
    schedule: str  # cron
    timezone: str
    baseline: str | None  # a run's name or id
    cutoffs: list[int]
    measures: list[str]  # beside the default ones
    max_drop: dict[str, float]  # measure → how far its mean may fall
    next_due_at: datetime | None  # None: it came to be no cron expression that ever comes


@dataclass(frozen=True, slots=True)
class Check:
    """What a run of a schedule came to on one count."""

    name: str  # a measure; or forbidden, degraded, baseline
    value: float
    alarm: bool
    told: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a schedule's latest run came to."""

    schedule_id: UUID
    run_id: UUID
    checks: tuple[Check, ...]
    at: datetime

    def alarms(self) -> tuple[Check, ...]:
        """Those that are."""
        return tuple(check for check in self.checks if check.alarm)


def add(
    conn: Conn, tenant_id: UUID, name: str, golden: str, schedule: str, timezone: str, baseline: str | None,
    cutoffs: Sequence[int], measures: Sequence[str], max_drop: Mapping[str, float], next_due_at: datetime,
) -> Schedule:  # fmt: skip
    """A new one. Raises Conflict when the name is taken."""
    values = (tenant_id, name, golden, schedule, timezone, baseline, list(cutoffs), list(measures),
              Jsonb(dict(max_drop)), next_due_at)  # fmt: skip
    try:
        row = conn.execute(ADD, values).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"a schedule named {name!r} exists: remove it first, or choose another --name") from error
    assert row is not None
    return by_id(conn, row[0])


def named(conn: Conn, tenant_id: UUID, name: str) -> Schedule:
    """By name. Raises NotFound."""
    otherwise = f"there is no scheduled evaluation {name!r}: `citadel eval schedule list` shows them"
    return one_row(conn, Schedule, BY_NAME, (tenant_id, name), otherwise)


def by_id(conn: Conn, schedule_id: UUID) -> Schedule:
    """By id. Raises NotFound."""
    return one_row(conn, Schedule, BY_ID, (schedule_id,), "there is no such scheduled evaluation")


def all_of(conn: Conn, tenant_id: UUID) -> list[Schedule]:
    """The tenant's, by name."""
    with conn.cursor(row_factory=class_row(Schedule)) as cursor:
        return cursor.execute(ALL, (tenant_id,)).fetchall()


def remove(conn: Conn, tenant_id: UUID, name: str) -> bool:
    """The schedule leaves, with its jobs; its runs stay. Whether there was one."""
    return conn.execute(REMOVE, (tenant_id, name)).rowcount > 0


def take_due(conn: Conn) -> list[Schedule]:
    """Those whose time has come, locked for this transaction; another scheduler's are passed over."""
    with conn.cursor(row_factory=class_row(Schedule)) as cursor:
        return cursor.execute(DUE).fetchall()


def set_due(conn: Conn, schedule_id: UUID, at: datetime | None) -> None:
    """When it is to run next; None: only on request."""
    conn.execute(SET_DUE, (at, schedule_id))


def add_result(conn: Conn, schedule: Schedule, run_id: UUID, checks: Sequence[Check]) -> None:
    """What a run came to."""
    told = Jsonb([asdict(check) for check in checks])
    conn.execute(ADD_RESULT, (run_id, schedule.tenant_id, schedule.id, told))


def latest(conn: Conn, tenant_id: UUID) -> dict[UUID, Result]:
    """The latest result of each schedule that has one."""
    rows: list[tuple[UUID, UUID, list[dict[str, Any]], datetime]] = conn.execute(LATEST, (tenant_id,)).fetchall()
    return {row[0]: Result(row[0], row[1], tuple(Check(**each) for each in row[2]), row[3]) for row in rows}


def history(conn: Conn, schedule_id: UUID, golden_id: UUID, runs: int) -> list[dict[str, float]]:
    """The means of the schedule's last whole runs over that version of its golden set, oldest first."""
    return [row[0] for row in reversed(conn.execute(HISTORY, (schedule_id, golden_id, runs)).fetchall())]
