"""GET and PUT /v1/fusion: how the tenant's dense and lexical legs become one list."""

from fastapi import APIRouter

from api.answers import FusionOut
from api.deps import FullOperator, ServiceDep
from api.schemas import FusionIn
from core.records import Fusion
from store import audit
from store.pool import reading_tenant
from store.profiles import fusion_of, set_fusion

router = APIRouter(prefix="/v1/fusion", tags=["search"])


@router.get("", response_model=FusionOut, summary="How the legs are fused")
def get_fusion(caller: FullOperator, service: ServiceDep) -> FusionOut:
    """Of the tenant's searches that name no fusion of their own."""
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        held = fusion_of(conn, caller.principal.tenant_id)
    return FusionOut(method=held.method, dense_weight=held.dense_weight, rrf_k=held.rrf_k)


@router.put("", response_model=FusionOut, summary="Change how the legs are fused")
def put_fusion(body: FusionIn, caller: FullOperator, service: ServiceDep) -> FusionOut:
    """Holds for every search of the tenant that begins after this answer. Measure first: `citadel eval legs`."""
    tenant_id, fusion = caller.principal.tenant_id, Fusion(body.method, body.dense_weight, body.rrf_k)
    with audit.audited(service.store) as conn:
        set_fusion(conn, tenant_id, fusion)
        audit.add(conn, tenant_id, "fusion.change", actor=caller.actor, acting_for=caller.acting_for,
                  request_id=caller.request_id, detail=body.model_dump())  # fmt: skip
    return FusionOut(method=fusion.method, dense_weight=fusion.dense_weight, rrf_k=fusion.rrf_k)
