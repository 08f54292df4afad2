"""Identity providers: whose tokens a tenant believes."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from core.errors import Conflict, Invalid
from core.identity import IdentityProvider
from core.labels import check_label
from store.pool import Conn

# Asymmetric ones only: with a shared secret, or with none, whoever can check a token could also make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SCOPES = frozenset({"search", "ingest", "operate"})  # a token speaks for its own user, so never `act_for`
RESERVED = ("user:", "service:")  # a group claim gives groups, not other people

ADD = """
    INSERT INTO identity_providers (id, tenant_id, name, issuer, audience, algorithms, jwks_url, jwks, subject_claim,
                                    fold_case, group_claim, group_prefix, scopes)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
FIND = """
    SELECT id, tenant_id, name, issuer, audience, algorithms, jwks_url, jwks, subject_claim, fold_case, group_claim,
           group_prefix, scopes
    FROM identity_providers WHERE issuer = %s AND audience = ANY(%s)
"""
LIST = """
    SELECT name, issuer, audience, algorithms, jwks_url, jwks IS NOT NULL AS jwks_file, subject_claim, fold_case,
           group_claim, group_prefix, scopes, created_at
    FROM identity_providers WHERE tenant_id = %s ORDER BY name
"""
REMOVE = "DELETE FROM identity_providers WHERE tenant_id = %s AND name = %s"


def add_provider(
    conn: Conn,
    tenant_id: UUID,
    name: str,
    issuer: str,
    audience: str,
    *,
    algorithms: Sequence[str] = ("RS256",),
    jwks_url: str | None = None,
    jwks: dict[str, Any] | None = None,
    subject_claim: str = "sub",
    fold_case: bool = False,
    group_claim: str | None = None,
    group_prefix: str = "group:",
    scopes: Sequence[str] = ("search",),
) -> IdentityProvider:
    """Believe this issuer's tokens for this audience. Raises Invalid, and Conflict where name or pair are taken."""
    if (jwks_url is None) == (jwks is None):
        raise Invalid("give either the address of the provider's keys (JWKS) or a file of them")
    if not algorithms or set(algorithms) - set(ALGORITHMS):
        raise Invalid(f"algorithms must be asymmetric, of {list(ALGORITHMS)}; not {list(algorithms)}")
    if not scopes or set(scopes) - SCOPES:
        raise Invalid(f"a token's scopes are of {sorted(SCOPES)}; not {list(scopes)}")
    if not issuer or not audience or not subject_claim:
        raise Invalid("issuer, audience and subject claim must not be empty")
    if check_label(group_prefix + "x").startswith(RESERVED):
        raise Invalid(f"the group prefix must not make users or services of groups: not {group_prefix!r}")
    provider = IdentityProvider(
        uuid4(), tenant_id, name, issuer, audience, tuple(dict.fromkeys(algorithms)), jwks_url, jwks, subject_claim,
        fold_case, group_claim, group_prefix, tuple(sorted(set(scopes))),
    )  # fmt: skip
    try:
        conn.execute(ADD, _row(provider))
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"a provider named {name!r}, or one of this issuer and audience, exists") from error
    return provider


def find_provider(conn: Conn, issuer: str, audiences: Sequence[str]) -> IdentityProvider | None:
    """The provider of a token that names this issuer and these audiences; None too where several would fit."""
    rows = conn.execute(FIND, (issuer, list(audiences))).fetchall()
    return _provider(rows[0]) if len(rows) == 1 else None


def list_providers(conn: Conn, tenant_id: UUID) -> list[dict[str, Any]]:
    """The tenant's providers by name, without their keys."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST, (tenant_id,)).fetchall()


def remove_provider(conn: Conn, tenant_id: UUID, name: str) -> bool:
    """Whether there was one of that name; its tokens are refused from the next call on."""
    return conn.execute(REMOVE, (tenant_id, name)).rowcount == 1


def _row(provider: IdentityProvider) -> tuple[Any, ...]:
    p = provider
    return (p.id, p.tenant_id, p.name, p.issuer, p.audience, list(p.algorithms), p.jwks_url,
            None if p.jwks is None else Jsonb(p.jwks), p.subject_claim, p.fold_case, p.group_claim, p.group_prefix,
            list(p.scopes))  # fmt: skip


def _provider(row: tuple[Any, ...]) -> IdentityProvider:
    fields: tuple[Any, ...] = tuple(tuple(value) if isinstance(value, list) else value for value in row)
    return IdentityProvider(*fields)
