"""What is kept of people's questions to make judgements of: a sample, where the tenant chose so, and feedback."""

from dataclasses import replace
from uuid import UUID

from core.errors import Invalid, Permanent
from core.feedback import Feedback
from core.records import Principal, SearchRequest
from retrieval.redact import redacted
from retrieval.trail import Answered, outcome_of
from store import access, asked, audit
from store.asked import Found
from store.documents import Span
from store.pool import Conn, Store, writing_alone


def trace(store: Store, principal: Principal, request: SearchRequest, answered: Answered) -> None:
    """Keep the question when it is one of the tenant's sample. An operator's own sight is nobody's: it is not kept.

    Which ones are is decided by the request's random id alone. Raises StoreUnavailable.
    """
    request_id = answered.answer.request_id
    if principal.bypass or not sampled(request_id, answered.hashing.trace_rate):
        return
    citations = (passage.citation for passage in answered.answer.passages)
    spans = [Span(c.document_id, c.version, c.start, c.end) for c in citations]
    with writing_alone(store) as conn:
        asked.sample(conn, principal.tenant_id, request_id, principal.subject, redacted(request.query), spans)


def sampled(request_id: UUID, rate: float) -> bool:
    """Whether this request is one of so large a share."""
    return request_id.int & 0xFFFFFFFF < rate * 2**32


def keep_feedback(store: Store, principal: Principal, feedback: Feedback, request_id: UUID) -> None:
    """Keep what the principal says of an answer that it got, in the place of what it said of it before.

    `request_id` is of this call. Whether a named document exists is not looked at: it would tell. Raises NotFound for
    the request of anybody else as for none, Invalid for markers or a question which that search did not have, Denied
    for a subject that was closed, StoreUnavailable.
    """
    tenant_id, actor = principal.tenant_id, principal.via or principal.subject
    acting_for = principal.subject if principal.via else None
    about = f"request:{feedback.request_id}"
    try:
        with audit.audited(store) as conn:
            access.check_open(conn, principal)
            found = asked.find(conn, tenant_id, feedback.request_id, actor, acting_for)
            asked.keep_feedback(conn, tenant_id, principal.subject, found, _checked(conn, tenant_id, found, feedback))
            audit.add(conn, tenant_id, "feedback", actor=actor, acting_for=acting_for, resource=about,
                      request_id=request_id, detail=_told(feedback))  # fmt: skip
    except Permanent as error:
        audit.record(store, tenant_id, "feedback", actor=actor, acting_for=acting_for, outcome=outcome_of(error),
                     resource=about, request_id=request_id)  # fmt: skip
        raise


def _checked(conn: Conn, tenant_id: UUID, found: Found, feedback: Feedback) -> Feedback:
    """What is kept of it: without what names people. Raises Invalid."""
    last = len(found.passages)
    if wrong := [marker for marker in feedback.used if not 1 <= marker <= last]:
        raise Invalid(f"used: [{wrong[0]}] is no marker of that answer, which had {last} passages")
    missing = tuple(replace(each, text=_words(each.text)) for each in feedback.missing)
    return replace(feedback, missing=missing, comment=_words(feedback.comment),
                   query=_words(_question(conn, tenant_id, found, feedback.query)))  # fmt: skip


def _question(conn: Conn, tenant_id: UUID, found: Found, query: str | None) -> str | None:
    """The question's words, as the audit has them, or as they are told now where its hash says that these were they."""
    if query is None or found.query is not None:
        return found.query
    digest = audit.keyed_hash(audit.hash_key(conn, tenant_id), "query", query).hex()
    if digest != found.query_hash:
        raise Invalid("query: these are not the words of that search; leave it out, or send it as it was asked")
    return query


def _words(text: str | None) -> str | None:
    return None if text is None else redacted(text)


def _told(feedback: Feedback) -> dict[str, object]:
    return {"helpful": feedback.helpful, "used": list(feedback.used), "missing": len(feedback.missing),
            "comment": feedback.comment is not None}  # fmt: skip
