"""GET /v1/access/explain: what decides whether somebody sees a document."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from api.answers import ExplanationOut, explanation_out
from api.deps import Operator, ServiceDep
from core.labels import check_label, check_subject
from core.records import Principal
from store import audit
from store.explain import explain
from store.pool import reading_tenant

MAX_CLAIMS = 200  # labels; a provider that has more to say keeps them out of the token
CLAIMS = "A label that the person's token gives, such as group:finance; repeat."

ClaimLabel = Annotated[str, StringConstraints(max_length=240)]
router = APIRouter(prefix="/v1/access", tags=["access"])


@router.get("/explain", response_model=ExplanationOut, summary="Why somebody sees a document, or does not")
def get_explanation(
    caller: Operator,
    service: ServiceDep,
    subject: Annotated[str, Query(alias="as", max_length=240, description="Whose sight: user:ana@acme.example.")],
    document_id: Annotated[UUID, Query()],
    claims: Annotated[list[ClaimLabel], Query(max_length=MAX_CLAIMS, description=CLAIMS)] = [],  # noqa: B006
) -> ExplanationOut:
    """Which label, by which groups, or which classification decided. `absent` is also what the key does not reach."""
    subject = check_subject(subject)
    tenant_id = caller.principal.tenant_id
    asked = Principal(tenant_id, subject, claims=tuple(sorted({check_label(claim) for claim in claims})))
    with reading_tenant(service.store, tenant_id) as conn:
        found = explain(conn, caller.principal, asked, document_id)
    audit.record(service.store, tenant_id, "access.explain", actor=caller.actor, acting_for=caller.acting_for,
                 resource=f"document:{document_id}", request_id=caller.request_id,
                 detail={"as": subject, "claims": asked.claims, "decision": found.decision,
                         "epoch": found.epoch})  # fmt: skip
    return explanation_out(found)
