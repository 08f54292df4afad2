"""Sources: where documents come from, and a refresh on request."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body

from api.answers import RefreshOut, SourceOut, SourcesOut, source_out
from api.deps import FullOperator, ServiceDep, Watcher
from api.schemas import RefreshIn, SourceIn
from api.service import Service
from core.errors import Invalid
from ingest.schedule import Plan, add_source, request_refresh
from ingest.sources.allowed import check_place, check_root, check_settings
from store import access, sources
from store.pool import reading_tenant

router = APIRouter(prefix="/v1/sources", tags=["sources"])


@router.post("", status_code=201, response_model=SourceOut, summary="Add a source")
def post_source(body: SourceIn, caller: FullOperator, service: ServiceDep) -> SourceOut:
    """Refreshed on its cron schedule or on request. It lies below one of the installation's source roots or URLs."""
    settings = body.settings | ({"uri_prefix": body.uri_prefix} if body.uri_prefix else {})
    check_settings(body.kind, settings)
    plan = None if body.schedule is None else Plan(body.schedule, body.timezone, body.jitter_s)
    config = _place(body, service) | settings
    source = add_source(service.store, caller.principal.tenant_id, body.name, body.kind, config, body.labels.record(),
                        plan, body.max_deleted_share, by=caller.told)  # fmt: skip
    return source_out(source)


def _place(body: SourceIn, service: Service) -> dict[str, str]:
    """Where it lies, if that is allowed."""
    if body.kind == "folder" and body.path is not None and body.url is None:
        check_root(body.path, service.source_roots)
        return {"path": body.path}
    if body.kind != "folder" and body.url is not None and body.path is None:
        check_place(body.url, service.source_urls)
        return {"url": body.url}
    raise Invalid("a folder has a `path`; a source of another kind has a `url`")


@router.get("", response_model=SourcesOut, summary="All sources")
def get_sources(caller: Watcher, service: ServiceDep) -> SourcesOut:
    """The tenant's sources by name, on one page; to a limited key those whose labels it sees, without `config`."""
    tenant_id, limited = caller.principal.tenant_id, caller.limited
    with reading_tenant(service.store, tenant_id) as conn:
        within = access.enter_scope(conn, caller.principal, service.store.scopes) if limited else None
        found = sources.all_of(conn, tenant_id, within)
    shown = [replace(source, config={}) if limited else source for source in found]
    return SourcesOut(sources=[source_out(source) for source in shown], next_cursor=None)


@router.post("/{source_id}/refresh", status_code=202, response_model=RefreshOut, summary="Refresh a source now")
def post_refresh(
    source_id: UUID, caller: FullOperator, service: ServiceDep, body: Annotated[RefreshIn | None, Body()] = None
) -> RefreshOut:
    """Accepts a refresh job."""
    asked = body or RefreshIn()
    return RefreshOut(
        job_id=request_refresh(
            service.store, caller.principal.tenant_id, source_id, allow_mass_delete=asked.allow_mass_delete,
            permissions_only=asked.permissions_only, allow_missing_rules=asked.allow_missing_rules, by=caller.told,
        )
    )  # fmt: skip
