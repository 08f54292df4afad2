"""Evaluations by the clock: due once however many schedulers look, run as jobs, and an alarm when it got worse."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from core.config import Settings
from core.errors import Invalid, NotFound
from core.records import Lease
from eval import exchange
from eval.asking import asking
from eval.drift import RUNS, Past, checks_of
from eval.gate import Limits
from eval.golden import GoldenSet
from eval.kept import Kept, behind_of, engine_of
from eval.measures import default_measures, parse_measures
from eval.pair import Side, side
from eval.record import Plan, record
from ingest.endings import Endings
from ingest.heartbeat import heartbeat
from ingest.schedule import Plan as Timing
from ingest.schedule import next_due
from retrieval.search import Searcher
from store import audit, jobs, schedules
from store import golden as sets
from store.audit import Actor
from store.pool import Conn, Store, writing
from store.schedules import Check, Schedule

log = logging.getLogger("citadel.eval")

WORKERS = 2  # questions asked at once
# A scheduled run measures the search, not how busy its host is: an answer that waits is whole.
UNHURRIED_S = 60.0

Opening = Callable[[Settings], AbstractContextManager[Searcher]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run when, and what it is held against."""

    name: str
    golden: str  # a kept set, NAME or NAME@VERSION
    timing: Timing
    baseline: str | None
    cutoffs: tuple[int, ...]
    measures: str  # with commas between, beside the default ones
    limits: Limits


@dataclass(frozen=True, slots=True)
class Evaluating:
    """What a process evaluates with."""

    store: Store
    lease_s: float
    settings: Settings
    opening: Opening


def add(store: Store, tenant_id: UUID, wanted: Wanted, by: Actor) -> Schedule:
    """Add it; its first run is at its next time. Raises Invalid, NotFound and Conflict, which say what to mend."""
    due = next_due(wanted.timing, datetime.now(UTC))
    chosen = [*default_measures(wanted.cutoffs), *parse_measures(wanted.measures)]
    names = [str(measure) for measure in chosen]
    if lost := wanted.limits.max_drop.keys() - set(names):
        raise Invalid(f"{', '.join(sorted(lost))}: no such measure is taken; choose among {', '.join(names)}")
    with writing(store) as conn:
        row = sets.named(conn, tenant_id, *sets.numbered(wanted.golden))
    if wanted.baseline and (baseline := side(store, tenant_id, wanted.baseline)).run.golden_id != row.id:
        raise Invalid(f"{wanted.baseline} is of {baseline.run.config['golden']}, not of {row.name}@{row.version}: "
                      f"`citadel eval run {wanted.golden} --name {wanted.baseline}` makes one")  # fmt: skip
    extra = [str(measure) for measure in parse_measures(wanted.measures)]
    with writing(store) as conn:
        added = schedules.add(conn, tenant_id, wanted.name, wanted.golden, wanted.timing.schedule,
                              wanted.timing.timezone, wanted.baseline, wanted.cutoffs, extra, wanted.limits.max_drop,
                              due)  # fmt: skip
        _audited(conn, added, by, {"added": added.golden, "schedule": added.schedule, "baseline": added.baseline})
        return added


def remove(store: Store, tenant_id: UUID, name: str, by: Actor) -> None:
    """The schedule leaves; its runs stay. Raises NotFound."""
    with writing(store) as conn:
        found = schedules.named(conn, tenant_id, name)
        schedules.remove(conn, tenant_id, name)
        _audited(conn, found, by, {"removed": found.golden})


def request(store: Store, tenant_id: UUID, name: str, by: Actor) -> UUID:
    """A job that runs it now. Raises NotFound."""
    with writing(store) as conn:
        found = schedules.named(conn, tenant_id, name)
        job_id = jobs.add_eval(conn, tenant_id, found.id, datetime.now(UTC))
        assert job_id is not None, "two requests do not share a microsecond"
        _audited(conn, found, by, {"run": str(job_id)})
        return job_id


def schedule_due(store: Store) -> int:
    """A job for each evaluation whose time has come; returns how many. Any number of schedulers may run it.

    One that still waits or runs gets no second one: it is as good.
    """
    added = 0
    with writing(store) as conn:
        for due in schedules.take_due(conn):
            assert due.next_due_at is not None
            if not jobs.eval_is_open(conn, due.id):
                added += jobs.add_eval(conn, due.tenant_id, due.id, due.next_due_at) is not None
            schedules.set_due(conn, due.id, _following(due))
    return added


def attempt(work: Evaluating, job_id: UUID) -> str:
    """Run what the job is of, unless it is done, held or not due: `skipped`, `done`, `failed`, `waits` or `lost`.

    What keeps it from running is on the job's row, as of every job: what may pass is waited out, and anything
    unforeseen puts it back, and is raised for the log. An interrupted run goes on where it was. Raises
    StoreUnavailable.
    """
    with writing(work.store) as conn:
        lease = jobs.claim(conn, job_id, work.lease_s)
    if lease is None:
        return "skipped"
    endings = Endings(work.store)
    with endings.told(lease), heartbeat(work.store, work.lease_s, lease):
        _evaluate(work, lease)
    return endings.of(job_id)


def _evaluate(work: Evaluating, lease: Lease) -> None:
    with writing(work.store) as conn:
        schedule = schedules.by_id(conn, jobs.schedule_of(conn, lease.job.id))
        row = sets.named(conn, schedule.tenant_id, *sets.numbered(schedule.golden))
        questions = exchange.from_lines(row.name, row.digest, sets.lines(conn, row.id))
    if not questions.queries:
        raise Invalid(f"{schedule.golden} has no question left that judges anything")
    unhurried = replace(work.settings, search_deadline_s=UNHURRIED_S, late_box_s=UNHURRIED_S,
                        reranker_box_s=UNHURRIED_S)  # fmt: skip
    with work.opening(unhurried) as searcher:
        plan = _plan(schedule, questions, work.settings.pool)
        engine = engine_of(work.settings) | behind_of(work.settings)
        run, _ = record(searcher.store, plan, engine, partial(asking, searcher, Kept()))
    finished = side(work.store, schedule.tenant_id, str(run.id))
    checks = checks_of(finished, _past(work.store, schedule, finished), schedule.max_drop)
    _write_down(work.store, lease, schedule, finished, checks)


def _plan(schedule: Schedule, questions: GoldenSet, pool: int) -> Plan:
    return Plan(schedule.tenant_id, schedule.tenant_id, schedule.name, questions, tuple(schedule.cutoffs),
                parse_measures(",".join(schedule.measures)), workers=WORKERS, pool=pool)  # fmt: skip


def _past(store: Store, schedule: Schedule, finished: Side) -> Past:
    with writing(store) as conn:
        means = schedules.history(conn, schedule.id, finished.run.golden_id, RUNS)
    if schedule.baseline is None:
        return Past(None, means)
    again = f"`citadel eval run {schedule.golden} --name {schedule.baseline}` pins a new one"
    try:
        baseline = side(store, schedule.tenant_id, schedule.baseline)
    except NotFound:
        return Past(None, means, f"there is no run {schedule.baseline}: {again}")
    if baseline.run.golden_id != finished.run.golden_id:
        return Past(None, means, f"{schedule.baseline} is of {baseline.run.config['golden']}, this run of "
                    f"{finished.run.config['golden']}: {again}")  # fmt: skip
    return Past(baseline, means)


def _write_down(store: Store, lease: Lease, schedule: Schedule, run: Side, checks: Sequence[Check]) -> None:
    """The result, the job's end, and the event of an alarm, in one transaction."""
    alarms = [check for check in checks if check.alarm]
    for check in alarms:
        log.warning("scheduled evaluation %s: %s: %s", schedule.name, check.name, check.told)
    with writing(store) as conn:
        schedules.add_result(conn, schedule, run.run.id, checks)
        jobs.finish(conn, lease, None, {"run": str(run.run.id), "alarms": [check.name for check in alarms]})
        if alarms:
            detail = {"run": str(run.run.id), "golden": run.run.config["golden"],
                      "alarms": [asdict(check) for check in alarms]}  # fmt: skip
            audit.add(conn, schedule.tenant_id, "eval.alarm", actor="service:worker",
                      resource=f"schedule:{schedule.name}", detail=detail)  # fmt: skip


def _following(due: Schedule) -> datetime | None:
    assert due.next_due_at is not None
    try:
        return next_due(Timing(due.schedule, due.timezone), max(datetime.now(UTC), due.next_due_at))
    except Invalid as error:  # this one alone: the others' times go on
        log.error("scheduled evaluation %s is not due any more: %s", due.name, error)
        return None


def _audited(conn: Conn, schedule: Schedule, by: Actor, detail: dict[str, object]) -> None:
    audit.add(conn, schedule.tenant_id, "eval.schedule", **asdict(by), resource=f"schedule:{schedule.name}",
              detail=detail)  # fmt: skip
