"""The audit trail: who did what, for whom, with what outcome. Rows are only ever added.

Each tenant's rows are a chain that the database makes (`store/chain.py` checks it). See docs/decisions/0008.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import StoreUnavailable
from store.pool import Conn, Store, write_alone, writing

# What the names mean never changes, and none is ever removed: exports of years ago are read by them. Add at the end.
Action = Literal[
    "search", "read", "submit", "label.change", "delete", "refresh", "key.create", "key.revoke", "groups.change",
    "list", "request", "audit.retention", "audit.query_text", "access.explain", "access.diff", "label_set.change",
    "key.rotate", "identity.add", "identity.remove", "scim.change", "fusion.change", "refresh.request", "job.cancel",
    "job.retry", "source.change",
]  # fmt: skip
ACTIONS: tuple[str, ...] = get_args(Action)

ADD = """
    INSERT INTO audit (tenant_id, action, actor, acting_for, outcome, resource, request_id, detail)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
# The chain's lock is held until the commit. So the commit does not wait for the disk, and then an empty transaction
# does, together with everybody else's: otherwise a tenant's searches queue for a write to the disk each.
NO_WAIT = "SET LOCAL synchronous_commit = off"
WAIT = "SELECT pg_logical_emit_message(true, 'citadel.audit', '')"
HASHING = "SELECT hash_key, keep_queries FROM tenants WHERE id = %s"
KEEP_QUERIES = "UPDATE tenants SET keep_queries = %s WHERE id = %s"
EXPORT = """
    SELECT seq, at, tenant_id AS tenant, action, actor, acting_for, outcome, resource, request_id, detail,
           encode(hash, 'hex') AS hash
    FROM audit_log
    WHERE tenant_id = %(tenant)s AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
    ORDER BY seq
"""
# Partitions are months of UTC, by name.
OLD_PARTITIONS = """
    SELECT inhrelid::regclass::text FROM pg_inherits
    WHERE inhparent = 'audit_log'::regclass
      AND to_date(right(inhrelid::regclass::text, 7), 'YYYY_MM') < date_trunc('month', now() AT TIME ZONE 'UTC')
          - make_interval(months => %s)
    ORDER BY 1
"""
CUTOFF = "(date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %(months)s)) AT TIME ZONE 'UTC'"
SET_BASES = f"""
    INSERT INTO audit_bases (tenant_id, seq, at, hash)
    SELECT DISTINCT ON (tenant_id) tenant_id, seq, at, hash FROM audit_log WHERE at < {CUTOFF}
    ORDER BY tenant_id, seq DESC
    ON CONFLICT (tenant_id) DO UPDATE SET seq = excluded.seq, at = excluded.at, hash = excluded.hash
    RETURNING tenant_id, seq, encode(hash, 'hex')
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as it is exported."""

    seq: int
    at: datetime
    tenant: UUID
    action: str
    actor: str
    acting_for: str | None
    outcome: str
    resource: str | None
    request_id: UUID | None
    detail: dict[str, Any]
    hash: str  # hex


@dataclass(frozen=True, slots=True)
class Actor:
    """Whom a row names: who did it, for whom, and by which request."""

    actor: str
    acting_for: str | None = None
    request_id: UUID | None = None


@contextmanager
def audited(store: Store) -> Iterator[Conn]:
    """As `writing`, for what ends with `add`: on the disk at its end, and nobody else of the tenant waited for that.

    Raises StoreUnavailable.
    """
    with writing(store) as conn:
        conn.execute(NO_WAIT)
        yield conn
    write_alone(store, WAIT)


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
    queries: Sequence[str] = (),
) -> None:
    """Commit one row, on the disk when this returns. `detail` holds ids and counts, never content.

    `queries` are kept as keyed hashes, and as they are only where the tenant asked for that. Raises StoreUnavailable:
    then what the row would tell of must not be answered.
    """
    told = dict(detail or {})
    try:
        with writing(store) as conn:
            with conn.pipeline():
                conn.execute(NO_WAIT)
                if queries:
                    told["queries"] = _kept(conn, tenant_id, queries)
            add(conn, tenant_id, action, actor=actor, acting_for=acting_for, outcome=outcome, resource=resource,
                request_id=request_id, detail=told)  # fmt: skip
        write_alone(store, WAIT)
    except psycopg.Error as error:
        raise StoreUnavailable(f"the audit took no row: {str(error).splitlines()[0]}") from error


def add(
    conn: Conn,
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
    """A row that is committed with this transaction. Make it the transaction's last: it holds up the tenant's chain."""
    row = (tenant_id, action, actor, acting_for, outcome, resource, request_id, Jsonb(dict(detail or {})))
    conn.execute(ADD, row)


def keyed_hash(key: bytes, purpose: str, *parts: str) -> bytes:
    """HMAC-SHA256 (RFC 2104) under a tenant's hash key; equal for equal parts of one purpose."""
    return hmac.digest(key, "\0".join((purpose, *parts)).encode(errors="surrogatepass"), hashlib.sha256)


def hash_key(conn: Conn, tenant_id: UUID) -> bytes:
    """The tenant's key for what is kept only as a hash."""
    return _hashing(conn, tenant_id)[0]


def keep_queries(conn: Conn, tenant_id: UUID, keep: bool) -> None:
    """Whether the tenant's searches are kept with the text of their queries from now on."""
    conn.execute(KEEP_QUERIES, (keep, tenant_id))


def export(conn: Conn, tenant_id: UUID, since: datetime | None, until: datetime | None) -> Iterator[AuditRow]:
    """The tenant's rows of since ≤ at < until, in the chain's order, read as they are asked for."""
    with conn.cursor(name="audit_export", row_factory=class_row(AuditRow)) as cursor:
        cursor.itersize = 5000
        yield from cursor.execute(EXPORT, {"tenant": tenant_id, "since": since, "until": until})


def retain(conn: Conn, months: int, actor: str) -> list[str]:
    """Drop the partitions of every tenant that are older than this month and `months` before it; runs as the owner.

    Each chain then begins after its recorded base, and a row at its end says so. Returns the partitions' names.
    """
    names = [str(name) for (name,) in conn.execute(OLD_PARTITIONS, (months,)).fetchall()]
    if names:
        bases = conn.execute(SET_BASES, {"months": months}).fetchall()
        for name in names:
            conn.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier(name)))
        for tenant_id, seq, digest in bases:
            detail = {"base": {"seq": seq, "hash": digest}, "dropped": names}
            add(conn, tenant_id, "audit.retention", actor=actor, detail=detail)
    return names


def _kept(conn: Conn, tenant_id: UUID, queries: Sequence[str]) -> list[dict[str, str]]:
    key, keep = _hashing(conn, tenant_id)
    return [{"hmac": keyed_hash(key, "query", q).hex(), **({"text": q} if keep else {})} for q in queries]


def _hashing(conn: Conn, tenant_id: UUID) -> tuple[bytes, bool]:
    row = conn.execute(HASHING, (tenant_id,)).fetchone()
    assert row is not None, "a credential names a tenant that exists"
    return bytes(row[0]), bool(row[1])
