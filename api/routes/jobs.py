"""GET /v1/jobs: what became of accepted work."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.answers import JobOut, job_out
from api.deps import ServiceDep, Watcher
from store import jobs
from store.pool import reading_tenant

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}", response_model=JobOut, summary="One job")
def get_job(job_id: UUID, caller: Watcher, service: ServiceDep) -> JobOut:
    """Its state, attempts, error, and the `seq` from which on a search sees its effect."""
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        return job_out(jobs.get(conn, job_id))


@router.get("", response_model=list[JobOut], summary="Latest jobs")
def get_jobs(
    caller: Watcher,
    service: ServiceDep,
    state: Annotated[str | None, Query(pattern="^[a-z]+$", max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[JobOut]:
    """The tenant's latest jobs, newest first, of one state or all."""
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        return [job_out(job) for job in jobs.recent(conn, caller.principal.tenant_id, state, limit)]
