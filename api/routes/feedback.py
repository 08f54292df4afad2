"""POST /v1/feedback: what somebody says of an answer that it got."""

from fastapi import APIRouter

from api.answers import FeedbackOut
from api.deps import Reader, ServiceDep
from api.schemas import FeedbackIn
from retrieval.traced import keep_feedback

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/feedback", response_model=FeedbackOut, summary="Say how good an answer was")
def post_feedback(body: FeedbackIn, caller: Reader, service: ServiceDep) -> FeedbackOut:
    """Kept in the place of what the same caller said of it before. 404 for every request but the caller's own."""
    keep_feedback(service.store, caller.principal, body.record(), caller.request_id)
    return FeedbackOut(request_id=body.request_id)
