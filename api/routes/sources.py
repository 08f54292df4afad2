"""Sources: where documents come from, and a refresh on request."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body

from api.answers import RefreshOut, SourceOut, SourcesOut, source_out
from api.deps import FullOperator, ServiceDep, Watcher
from api.schemas import RefreshIn, SourceIn
from ingest.schedule import add_folder, check_root, request_refresh
from store import sources
from store.pool import reading_tenant

router = APIRouter(prefix="/v1/sources", tags=["sources"])


@router.post("", status_code=201, response_model=SourceOut, summary="Add a source")
def post_source(body: SourceIn, caller: FullOperator, service: ServiceDep) -> SourceOut:
    """A folder, refreshed on its cron schedule or on request. It lies below one of the installation's source roots."""
    check_root(body.path, service.source_roots)
    config = {"path": body.path} | ({"uri_prefix": body.uri_prefix} if body.uri_prefix else {})
    source = add_folder(service.store, caller.principal.tenant_id, body.name, config, body.labels.record(),
                        body.schedule, body.max_deleted_share, by=caller.told)  # fmt: skip
    return source_out(source)


@router.get("", response_model=SourcesOut, summary="All sources")
def get_sources(caller: Watcher, service: ServiceDep) -> SourcesOut:
    """The tenant's sources by name, on one page."""
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        found = sources.all_of(conn, caller.principal.tenant_id)
    return SourcesOut(sources=[source_out(source) for source in found], next_cursor=None)


@router.post("/{source_id}/refresh", status_code=202, response_model=RefreshOut, summary="Refresh a source now")
def post_refresh(
    source_id: UUID, caller: FullOperator, service: ServiceDep, body: Annotated[RefreshIn | None, Body()] = None
) -> RefreshOut:
    """Accepts a refresh job."""
    allow = body is not None and body.allow_mass_delete
    return RefreshOut(
        job_id=request_refresh(
            service.store, caller.principal.tenant_id, source_id, allow_mass_delete=allow, by=caller.told
        )
    )
