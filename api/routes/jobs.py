"""/v1/jobs: what became of accepted work, and an end or another beginning to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.answers import JobOut, JobsOut, job_out
from api.cursor import END, read_cursor, write_cursor
from api.deps import Caller, FullOperator, ServiceDep, Watcher
from api.service import Service
from store import access, jobs, operations
from store.audit import audited
from store.pool import Conn, reading_tenant

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}", response_model=JobOut, summary="One job")
def get_job(job_id: UUID, caller: Watcher, service: ServiceDep) -> JobOut:
    """Its state, attempts, error, and the `seq` from which on a search sees its effect."""
    with _reading(service, caller) as conn:
        return job_out(jobs.get(conn, job_id, in_scope=caller.limited), caller.limited)


@router.get("", response_model=JobsOut, summary="Latest jobs")
def get_jobs(
    caller: Watcher,
    service: ServiceDep,
    state: Annotated[str | None, Query(pattern="^[a-z]+$", max_length=20)] = None,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobsOut:
    """A page of the tenant's jobs, newest first, of one state or all; to a limited key, those of what it reaches."""
    tenant_id, limited = caller.principal.tenant_id, caller.limited
    with _reading(service, caller) as conn:
        found = jobs.recent(conn, tenant_id, state, limit + 1, read_cursor(cursor, END), in_scope=limited)
    shown = found[:limit]
    more = write_cursor(shown[-1].created_at, shown[-1].id) if len(found) > limit else None
    return JobsOut(jobs=[job_out(job, limited) for job in shown], next_cursor=more)


@router.post("/{job_id}/cancel", response_model=JobOut, summary="Cancel a job")
def post_cancel(job_id: UUID, caller: FullOperator, service: ServiceDep) -> JobOut:
    """What works on it stops at its next commit. Its version is failed: submit it again, or retry."""
    with audited(service.store) as conn:
        return job_out(operations.cancel_one(conn, caller.principal.tenant_id, job_id, caller.told), caller.limited)


@router.post("/{job_id}/retry", response_model=JobOut, summary="Try a job again")
def post_retry(job_id: UUID, caller: FullOperator, service: ServiceDep) -> JobOut:
    """Accepts a failed, quarantined or cancelled job again, with its attempts forgotten."""
    with audited(service.store) as conn:
        return job_out(operations.retry_one(conn, caller.principal.tenant_id, job_id, caller.told), caller.limited)


@contextmanager
def _reading(service: Service, caller: Caller) -> Iterator[Conn]:
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        if caller.limited:
            access.enter_scope(conn, caller.principal, service.store.scopes)
        yield conn
