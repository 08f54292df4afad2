"""Is it alive, is it ready, and the figures for a scraper."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.deps import Operator, ServiceDep
from api.metrics import TenantMetrics
from core.errors import BrokerUnavailable, CitadelError
from store import migrate, safety
from store.pool import reading_tenant

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> dict[str, str]:  # not on the thread pool: it may be full of searches that wait
    """Answers whenever the process does."""
    return {"status": "ok"}


@router.get("/readyz", summary="May it be sent requests", responses={503: {"description": "Not ready; says why"}})
def readyz(service: ServiceDep) -> JSONResponse:
    """Ready when Postgres answers, its migrations are this code's and row-level security holds.

    Without Redis it is ready, for searches and submissions need none, and says `degraded`; so it is without the lexical
    replicas' follower, for searches go on, and leave the leg out when it is too far behind.
    """
    checks = {"database": _database(service), "broker": _broker(service), "lexical": service.searcher.lexical.state()}
    ready = checks["database"] == "ok"
    degraded = (checks["broker"], checks["lexical"]) != ("ok", "ok")
    return JSONResponse({"ready": ready, "degraded": degraded, "checks": checks}, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(caller: Operator, service: ServiceDep, request: Request) -> Any:
    """The tenant's counters in this process, its jobs and sources, and the length of the queue."""
    tenant: TenantMetrics = request.app.state.metrics.of(caller.principal.tenant_id)
    text = tenant.render(service, caller.principal if caller.limited else None)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _database(service: ServiceDep) -> str:
    try:
        with reading_tenant(service.store, None) as conn:
            if pending := migrate.pending(conn):
                return f"migrations pending: {', '.join(pending)}; run `citadel migrate`"
            safety.check(conn)
    except CitadelError as error:
        return error.code
    return "ok"


def _broker(service: ServiceDep) -> str:
    try:
        service.broker.queue_length()
    except BrokerUnavailable as error:
        return error.code
    return "ok"
