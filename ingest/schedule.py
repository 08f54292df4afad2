"""Sources and their refresh times: cron, by the clock of a time zone, each source a little late in its own way."""

import hashlib
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from core.errors import Conflict, Invalid
from core.records import Labels, Source
from ingest.sources.open import open_source
from store import audit, jobs, sources
from store.audit import Actor
from store.pool import Store, writing
from store.sources import DueSource

log = logging.getLogger("citadel.schedule")

MAX_SCHEDULE = 200  # characters
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """When a source is to be refreshed by itself."""

    schedule: str  # cron
    timezone: str = "UTC"
    jitter_s: int = 0  # each time up to so many seconds later


def add_source(
    store: Store,
    tenant_id: UUID,
    name: str,
    kind: str,
    config: dict[str, Any],
    labels: Labels,
    plan: Plan | None,
    max_deleted_share: float,
    *,
    by: Actor | None = None,
) -> Source:
    """Add a source; with a plan it is due at once.

    Raises Invalid for a schedule that is not cron, and for a configuration that is not its kind's.
    """
    now = datetime.now(UTC)
    if plan is not None:
        next_due(plan, now)
    open_source(Source(uuid4(), tenant_id, name, kind, config, labels, None, max_deleted_share, None))
    timing, schedule = plan or Plan(""), plan.schedule if plan else None
    with writing(store) as conn:
        source_id = sources.add(conn, tenant_id, name, kind, config, labels, schedule, max_deleted_share,
                                now if plan else None, timing.timezone, timing.jitter_s)  # fmt: skip
        source = sources.by_id(conn, tenant_id, source_id)
        if by is not None:
            detail = {"added": kind, "schedule": schedule, "labels": asdict(labels)}
            audit.add(conn, tenant_id, "source.change", **asdict(by), resource=f"source:{name}", detail=detail)
        return source


def add_folder(
    store: Store,
    tenant_id: UUID,
    name: str,
    config: dict[str, Any],
    labels: Labels,
    schedule: str | None,
    max_deleted_share: float,
    *,
    by: Actor | None = None,
) -> Source:
    """Add a folder, its schedule in UTC. Raises Invalid for a schedule that is not cron."""
    plan = Plan(schedule) if schedule is not None else None
    return add_source(store, tenant_id, name, "folder", config, labels, plan, max_deleted_share, by=by)


def request_refresh(
    store: Store, tenant_id: UUID, source_id: UUID, *, allow_mass_delete: bool = False, permissions_only: bool = False,
    allow_missing_rules: bool = False, by: Actor | None = None,
) -> UUID:  # fmt: skip
    """A refresh job for now.

    Raises NotFound, Invalid for a source that documents are pushed to, Conflict for a paused one.
    """
    with writing(store) as conn:
        source = sources.by_id(conn, tenant_id, source_id)
        if source.kind == "api":
            raise Invalid(f"source {source.name!r} takes pushed documents: there is nothing to refresh")
        if source.paused_at is not None:
            raise Conflict(f"source {source.name!r} is paused: citadel sources resume {source.name}")
        asked = {"permissions_only": permissions_only, "allow_missing_rules": allow_missing_rules}
        detail = {"allow_mass_delete": allow_mass_delete} | {key: True for key, on in asked.items() if on}
        job_id = jobs.add_refresh(conn, tenant_id, source_id, datetime.now(UTC), detail)
        assert job_id is not None, "two requests do not share a microsecond"
        if by is not None:
            audit.add(conn, tenant_id, "refresh.request", **asdict(by), resource=f"source:{source.name}", detail=detail)
    return job_id


def pause(store: Store, tenant_id: UUID, name: str, *, by: Actor) -> Source:
    """Leave the source alone from now on; a refresh that is under way stops at its next commit and waits."""
    return _set_paused(store, tenant_id, name, by, paused=True)


def resume(store: Store, tenant_id: UUID, name: str, *, by: Actor) -> Source:
    """Take the source up again: what waited goes on, and what fell due meanwhile is due now."""
    return _set_paused(store, tenant_id, name, by, paused=False)


def _set_paused(store: Store, tenant_id: UUID, name: str, by: Actor, *, paused: bool) -> Source:
    with writing(store) as conn:
        source = sources.named(conn, tenant_id, name)
        sources.set_paused(conn, source.id, paused)
        suspended = paused and jobs.suspend(conn, source.id)
        detail = {"paused": paused, "suspended": suspended}
        audit.add(conn, tenant_id, "source.change", **asdict(by), resource=f"source:{name}", detail=detail)
        return sources.by_id(conn, tenant_id, source.id)


def schedule_due(store: Store) -> int:
    """A refresh job for each source whose time has come; returns how many. Any number of schedulers may run it.

    A source that still waits for an earlier refresh gets no second one: that one will see all there is.
    """
    added = 0
    with writing(store) as conn:
        for due in sources.take_due(conn):
            if not jobs.refresh_waits(conn, due.id):
                added += jobs.add_refresh(conn, due.tenant_id, due.id, due.next_due_at) is not None
            sources.set_due(conn, due.id, _following(due))
    return added


def next_due(plan: Plan, after: datetime, source_id: UUID | None = None) -> datetime:
    """The plan's next time, in UTC, and for a source so much later as is its own share of the jitter.

    A time that the clock of the zone leaves out is the first one after, and one that it has twice is the first: as cron
    has it, expressions that name no hour go on through both. Raises Invalid unless the schedule is a cron expression of
    five fields (a sixth is the year to some and the seconds to others), or `@daily` and its like, and the zone known.
    """
    try:
        fields = ALIASES.get(plan.schedule, plan.schedule)
        if len(fields.split()) != 5 or len(fields) > MAX_SCHEDULE:
            raise CronSimError("five fields")
        following: datetime = next(CronSim(fields, after.astimezone(_zone(plan.timezone)))).astimezone(UTC)
    except (CronSimError, StopIteration) as error:
        raise Invalid(
            f"{plan.schedule[:80]!r} is not a cron expression such as `*/15 * * * *`, or its time never comes"
        ) from error
    return following + _late(plan, following, source_id)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"{name[:80]!r} is no time zone: write one such as Europe/Berlin") from error


def _late(plan: Plan, at: datetime, source_id: UUID | None) -> timedelta:
    """The same for every scheduler, and another for each source and time."""
    if source_id is None or not plan.jitter_s:
        return timedelta()
    digest = hashlib.sha256(f"{source_id} {at.isoformat()}".encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8], "big") % (plan.jitter_s + 1))


def _following(due: DueSource) -> datetime | None:
    plan = Plan(due.schedule, due.timezone, due.jitter_s)
    after = max(datetime.now(UTC), due.next_due_at)
    try:
        return next_due(plan, after, due.id)
    except Invalid as error:  # this source alone: the others' times go on
        log.error("source %s is not scheduled any more: %s", due.id, error)
        return None
