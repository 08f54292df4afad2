"""The audit trail: who did what, for whom, with what outcome. Rows are only ever added."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from store.pool import Store, writing

Action = Literal[
    "search",
    "read",
    "submit",
    "label.change",
    "delete",
    "refresh",
    "key.create",
    "key.revoke",
    "groups.change",
    "access.explain",
    "access.diff",
    "label_set.change",
]

ADD = """
    INSERT INTO audit (tenant_id, action, actor, acting_for, outcome, resource, request_id, detail)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def record(
    store: Store,
    tenant_id: UUID,
    action: Action,
    *,
    actor: str,
    acting_for: str | None = None,
    outcome: str = "ok",
    resource: str | None = None,
    request_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Commit one row. `detail` holds ids and counts, never content."""
    row = (tenant_id, action, actor, acting_for, outcome, resource, request_id, Jsonb(dict(detail or {})))
    with writing(store) as conn:
        conn.execute(ADD, row)
