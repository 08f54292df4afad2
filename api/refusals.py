"""A refused request leaves a row in the audit, as soon as it is known whose credential it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from fastapi import Request

from api.service import Service
from core.errors import Denied
from store import audit

LONGEST = 300  # characters of a path that are kept


@contextmanager
def refusals_recorded(
    service: Service, request: Request, tenant_id: UUID, actor: str, acting_for: str | None = None
) -> Iterator[None]:
    """Record what the body refuses, and refuse it."""
    try:
        yield
    except Denied as error:
        resource = f"{request.method} {request.url.path[:LONGEST]}"
        audit.record(service.store, tenant_id, "request", actor=actor, acting_for=acting_for, outcome="denied",
                     resource=resource, detail={"reason": str(error)})  # fmt: skip
        raise
