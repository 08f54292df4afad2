"""API keys: made once, shown once, kept as a hash."""

import hashlib
import logging
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from core.errors import Conflict, Invalid, NotFound, StoreUnavailable
from core.identity import ApiKey
from core.labels import check_label, name_label
from store.pool import Conn, Store, writing

log = logging.getLogger(__name__)

SCOPES = frozenset({"search", "ingest", "act_for", "operate", "provision"})
PREFIX = "ck_"

ADD = """
    INSERT INTO api_keys (tenant_id, name, secret_hash, scopes, ceiling, max_classification, require_act_for,
                          expires_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
FIND = """
    SELECT id, tenant_id, name, scopes, ceiling, max_classification, require_act_for,
           coalesce(last_used_at >= now() - interval '1 minute', false)
    FROM api_keys
    WHERE (secret_hash = %(hash)s OR (previous_hash = %(hash)s AND previous_until > now()))
      AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
ROTATE = """
    UPDATE api_keys SET previous_hash = secret_hash, previous_until = now() + %s, secret_hash = %s
    WHERE tenant_id = %s AND name = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    RETURNING previous_until
"""
# Callers of one key do not queue for its row: one of them writes, the others pass.
USED = """
    UPDATE api_keys SET last_used_at = now() WHERE id = (
        SELECT id FROM api_keys WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR UPDATE SKIP LOCKED)
"""
REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE tenant_id = %s AND name = %s AND revoked_at IS NULL"
LIST = """
    SELECT name, scopes, ceiling, max_classification, require_act_for, created_at, expires_at, revoked_at, last_used_at,
           CASE WHEN previous_until > now() THEN previous_until END AS old_secret_until
    FROM api_keys WHERE tenant_id = %s ORDER BY name
"""


def create_key(
    conn: Conn,
    tenant_id: UUID,
    name: str,
    scopes: Sequence[str],
    *,
    ceiling: Sequence[str] | None = None,
    max_classification: str | None = None,
    require_act_for: bool = False,
    expires_at: datetime | None = None,
) -> str:
    """Make a key and return its secret, which is not kept. Raises Invalid for an unknown scope, InvalidLabel for a
    name that is too long, Conflict for one that is taken."""
    if unknown := set(scopes) - SCOPES:
        raise Invalid(f"unknown scopes {sorted(unknown)}: choose from {sorted(SCOPES)}")
    if "ingest" in scopes and (ceiling is not None or max_classification is not None):
        raise Invalid("a key with a ceiling or a highest classification cannot ingest: writing is not limited by them")
    if require_act_for and "act_for" not in scopes:
        raise Invalid("a key that must name the end user needs the scope act_for")
    name_label("service:", name)  # as which it asks
    within = None if ceiling is None else [check_label(label) for label in ceiling]
    secret = _new_secret()
    values = (tenant_id, name, _digest(secret), sorted(set(scopes)), within, max_classification, require_act_for,
              expires_at)  # fmt: skip
    try:
        conn.execute(ADD, values)
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"a key named {name!r} exists: revoke it, or choose another name") from error
    return secret


def rotate_key(conn: Conn, tenant_id: UUID, name: str, overlap: timedelta) -> tuple[str, datetime]:
    """Give a live key a new secret; returns it, and when the old one dies. Raises NotFound.

    A secret that an earlier rotation left alive dies now: at most two open a key. Its expiry stays as it is.
    """
    secret = _new_secret()
    row = conn.execute(ROTATE, (overlap, _digest(secret), tenant_id, name)).fetchone()
    if row is None:
        raise NotFound(f"there is no live key {name!r}: `citadel keys list` shows all")
    return secret, row[0]


def find_key(conn: Conn, secret: str) -> ApiKey | None:
    """The live key with this secret. The look-up is by digest, so its timing tells nothing about the secret."""
    row = conn.execute(FIND, {"hash": _digest(secret)}, prepare=True).fetchone()
    if row is None:
        return None
    key_id, tenant_id, name, scopes, ceiling, max_classification, require_act_for, noted = row
    return ApiKey(key_id, tenant_id, name, frozenset(scopes), None if ceiling is None else tuple(ceiling),
                  max_classification, require_act_for, noted)  # fmt: skip


def note_use(store: Store, key: ApiKey) -> None:
    """Write down that the key is used now, at most once a minute; a call never fails for it."""
    try:
        with writing(store) as conn:
            conn.execute(USED, (key.id,))
    except (StoreUnavailable, psycopg.Error) as error:
        log.warning("the last use of key %s was not noted: %s", key.name, type(error).__name__)


def revoke_key(conn: Conn, tenant_id: UUID, name: str) -> bool:
    """Whether a live key of that name was revoked."""
    return conn.execute(REVOKE, (tenant_id, name)).rowcount == 1


def list_keys(conn: Conn, tenant_id: UUID) -> list[dict[str, Any]]:
    """Every key of the tenant, without secrets, by name."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST, (tenant_id,)).fetchall()


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
