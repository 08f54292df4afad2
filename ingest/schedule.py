"""Sources and their refresh times. Cron expressions are read in UTC."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from croniter import croniter

from core.errors import Invalid
from core.records import Labels, Source
from store import jobs, sources
from store.pool import Store, writing


def add_folder(
    store: Store,
    tenant_id: UUID,
    name: str,
    config: dict[str, Any],
    labels: Labels,
    schedule: str | None,
    max_deleted_share: float,
) -> Source:
    """Add a folder source; with a schedule it is due at once. Raises Invalid for a schedule that is not cron."""
    now = datetime.now(UTC)
    if schedule is not None:
        next_due(schedule, now)
    with writing(store) as conn:
        source_id = sources.add(conn, tenant_id, name, "folder", config, labels, schedule, max_deleted_share,
                                now if schedule else None)  # fmt: skip
        return sources.by_id(conn, tenant_id, source_id)


def request_refresh(store: Store, tenant_id: UUID, source_id: UUID, *, allow_mass_delete: bool = False) -> UUID:
    """A refresh job for now. Raises NotFound, and Invalid for a source that documents are pushed to."""
    with writing(store) as conn:
        source = sources.by_id(conn, tenant_id, source_id)
        if source.kind == "api":
            raise Invalid(f"source {source.name!r} takes pushed documents: there is nothing to refresh")
        detail = {"allow_mass_delete": allow_mass_delete}
        job_id = jobs.add_refresh(conn, tenant_id, source_id, datetime.now(UTC), detail)
    assert job_id is not None, "two requests do not share a microsecond"
    return job_id


def schedule_due(store: Store) -> int:
    """A refresh job for each source whose time has come; returns how many. Any number of schedulers may run it."""
    added = 0
    with writing(store) as conn:
        for due in sources.take_due(conn):
            added += jobs.add_refresh(conn, due.tenant_id, due.id, due.next_due_at) is not None
            sources.set_due(conn, due.id, next_due(due.schedule, datetime.now(UTC)))
    return added


def next_due(schedule: str, after: datetime) -> datetime:
    """The schedule's next time. Raises Invalid unless it is a cron expression."""
    if not croniter.is_valid(schedule):
        raise Invalid(f"{schedule!r} is not a cron expression such as `*/15 * * * *`")
    following: datetime = croniter(schedule, after).get_next(datetime)
    return following
