"""What the audit keeps of a search or a read: who, for whom, through which label sets, and which versions went out.

What failed for a passing reason gave no answer, and may not even have found the database: it leaves no row.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import Denied, Permanent
from core.records import AccessScope, Principal, SearchAnswer, SearchRequest
from store import access, audit
from store.audit import Hashing
from store.pool import Conn, Store, reading_tenant

SHORT = 32  # label sets up to this number are listed; more are told by their digest and their number


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is about to go out, and what the audit needs beside it."""

    answer: SearchAnswer
    scope: AccessScope
    hashing: Hashing


def scope_detail(scope: AccessScope) -> dict[str, Any]:
    """The scope: its epoch, how many label sets, and the digest of their ids."""
    count = len(scope.label_set_ids)
    listed = {"ids": sorted(scope.label_set_ids)} if count <= SHORT else {}
    return {"epoch": scope.epoch, "label_sets": {"count": count, "sha256": scope.digest, **listed}}


def outcome_of(error: Permanent) -> str:
    """`denied`, or the error's own code."""
    return "denied" if isinstance(error, Denied) else error.code


def record_search(
    store: Store,
    principal: Principal,
    request: SearchRequest,
    request_id: UUID,
    answered: Answered | Permanent,
) -> None:
    """A row for an answer that is about to go out, or for a search that was refused. Raises StoreUnavailable."""
    detail: dict[str, Any] = {"mode": request.mode, "top_k": request.top_k, "bypass": principal.bypass}
    outcome = "ok"
    if isinstance(answered, Permanent):
        outcome = outcome_of(answered)
    else:
        answer = answered.answer
        detail |= {"explain": True} if answer.explanation is not None else {}
        detail |= {**_went_out(answer), "degraded": list(answer.degraded), **scope_detail(answered.scope)}
    hashing = None if isinstance(answered, Permanent) else answered.hashing
    _record(store, principal, "search", None, request_id, outcome, detail, (request.query, *request.queries), hashing)


def _went_out(answer: SearchAnswer) -> dict[str, Any]:
    """The versions that went out, and each passage as [place among those, start, end], in the order of the markers."""
    told = [f"{p.citation.document_id}@{p.citation.version}" for p in answer.passages]
    documents = sorted({*told, *(f"{each.document_id}@{each.version}" for each in answer.explanation or ())})
    place = {version: number for number, version in enumerate(documents)}
    spans = [[place[v], p.citation.start, p.citation.end] for v, p in zip(told, answer.passages, strict=True)]
    return {"documents": documents, "spans": spans}


@contextmanager
def audited_read(
    store: Store, principal: Principal, action: audit.Action, resource: str | None, request_id: UUID
) -> Iterator[tuple[Conn, dict[str, Any]]]:
    """A transaction under the principal's scope; when it is left, what was read of goes into the audit.

    The body puts `documents`, as `id@version`, and whatever else there is to tell into the dictionary. Raises
    StoreUnavailable when the row cannot be written: then nothing of what was read may be answered.
    """
    told: dict[str, Any] = {"bypass": principal.bypass}
    try:
        with reading_tenant(store, principal.tenant_id) as conn:
            told |= scope_detail(access.enter_scope(conn, principal, store.scopes))
            yield conn, told
    except Permanent as error:
        _record(store, principal, action, resource, request_id, outcome_of(error), told)
        raise
    _record(store, principal, action, resource, request_id, "ok", told)


def _record(
    store: Store,
    principal: Principal,
    action: audit.Action,
    resource: str | None,
    request_id: UUID,
    outcome: str,
    detail: Mapping[str, Any],
    queries: tuple[str, ...] = (),
    hashing: Hashing | None = None,
) -> None:
    acting_for = principal.subject if principal.via else None
    audit.record(store, principal.tenant_id, action, actor=principal.via or principal.subject, acting_for=acting_for,
                 outcome=outcome, resource=resource, request_id=request_id, detail=detail, queries=queries,
                 hashing=hashing)  # fmt: skip
