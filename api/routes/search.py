"""POST /v1/search: cited context."""

from fastapi import APIRouter, Depends, Request, Response

from api.admission import admitted
from api.answers import SearchOut, search_out
from api.deps import Reader, ServiceDep
from api.metrics import TenantMetrics
from api.schemas import SearchIn
from retrieval.search import search

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/search", response_model=SearchOut, response_model_exclude_unset=True,
             summary="Search what the caller may see", dependencies=[Depends(admitted)])  # fmt: skip
def post_search(body: SearchIn, caller: Reader, service: ServiceDep, request: Request) -> Response:
    """Passages with citations, and a ready `context` whose markers match them."""
    metrics: TenantMetrics = request.app.state.metrics.of(caller.principal.tenant_id)
    with metrics.searching(body.mode):
        answer = search(service.searcher, caller.principal, body.record(), caller.request_id)
    for stage in answer.degraded:
        metrics.degraded.labels(stage).inc()
    metrics.recalled.inc(answer.recalled)
    told = SearchOut.model_validate(search_out(answer, "operate" in caller.scopes and not caller.delegated))
    return Response(told.model_dump_json(exclude_unset=True), media_type="application/json")
