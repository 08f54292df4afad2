"""The key that a resolved scope is kept by: two principals that differ in anything share none."""

from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest

from core.records import AccessScope, Principal
from store.scopes import Resolved, ScopeCache

ANA = Principal(UUID(int=1), "user:ana")
# Another value of each field of a principal; a field that is added to it is added here.
OTHERS: dict[str, Any] = {
    "tenant_id": UUID(int=2),
    "subject": "user:ben",
    "ceiling": (),
    "max_classification": "internal",
    "bypass": True,
    "via": "service:agent",
    "claims": ("group:staff",),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Principal)])
def test_principals_that_differ_in_one_field_share_no_scope(name: str) -> None:
    cache, other = ScopeCache(), replace(ANA, **{name: OTHERS[name]})
    kept = Resolved(AccessScope(ANA.tenant_id, ANA.subject, (7,), 1), 5)
    cache.put(ANA, kept)
    assert cache.get(other) is None
    assert cache.get(replace(ANA)) is kept
