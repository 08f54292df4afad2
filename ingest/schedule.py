"""Sources and their refresh times. Cron expressions are read in UTC."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from croniter import croniter

from core.errors import Conflict, Invalid
from core.records import Labels, Source
from store import audit, jobs, sources
from store.audit import Actor
from store.pool import Store, writing
from store.sources import DueSource

log = logging.getLogger("citadel.schedule")

ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_RANDOM = re.compile("(?<![A-Za-z])[Rr](?![A-Za-z])")  # croniter's random times differ at each look


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
    """Add a folder source; with a schedule it is due at once. Raises Invalid for a schedule that is not cron."""
    now = datetime.now(UTC)
    if schedule is not None:
        next_due(schedule, now)
    with writing(store) as conn:
        source_id = sources.add(conn, tenant_id, name, "folder", config, labels, schedule, max_deleted_share,
                                now if schedule else None)  # fmt: skip
        source = sources.by_id(conn, tenant_id, source_id)
        if by is not None:
            detail = {"added": source.kind, "schedule": schedule, "labels": asdict(labels)}
            audit.add(conn, tenant_id, "source.change", **asdict(by), resource=f"source:{name}", detail=detail)
        return source


def check_root(path: str, roots: Sequence[Path]) -> None:
    """Raises Invalid unless the folder lies below one of the roots.

    The workers read a source with their own rights, the blobs of every tenant among what they may read: somebody who
    only has an operator's key of one tenant must not point them anywhere.
    """
    place = Path(os.path.normpath(path))
    if not place.is_absolute() or not any(place.is_relative_to(os.path.normpath(root)) for root in roots):
        raise Invalid(
            f"the folder {path[:200]!r} is not below a source root of this installation: whoever runs it names those "
            "in CITADEL_SOURCE_ROOTS, or adds the source with `citadel sources add`"
        )


def request_refresh(
    store: Store, tenant_id: UUID, source_id: UUID, *, allow_mass_delete: bool = False, by: Actor | None = None
) -> UUID:
    """A refresh job for now.

    Raises NotFound, Invalid for a source that documents are pushed to, Conflict for a paused one.
    """
    with writing(store) as conn:
        source = sources.by_id(conn, tenant_id, source_id)
        if source.kind == "api":
            raise Invalid(f"source {source.name!r} takes pushed documents: there is nothing to refresh")
        if source.paused_at is not None:
            raise Conflict(f"source {source.name!r} is paused: citadel sources resume {source.name}")
        detail = {"allow_mass_delete": allow_mass_delete}
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


def next_due(schedule: str, after: datetime) -> datetime:
    """The schedule's next time. Raises Invalid unless it is a cron expression of five fields, or `@daily` and its like.

    Of five: a sixth is the year to some and the seconds to others.
    """
    try:
        if len(schedule.split()) != 5 and schedule not in ALIASES or _RANDOM.search(schedule):
            raise ValueError("five fields")
        following: datetime = croniter(schedule, after).get_next(datetime)
    except ValueError as error:  # croniter's own errors are of this kind
        shown = schedule[:80]
        raise Invalid(f"{shown!r} is not a cron expression such as `*/15 * * * *`, or its time never comes") from error
    return following


def _following(due: DueSource) -> datetime | None:
    try:
        return next_due(due.schedule, datetime.now(UTC))
    except Invalid as error:  # this source alone: the others' times go on
        log.error("source %s is not scheduled any more: %s", due.id, error)
        return None
