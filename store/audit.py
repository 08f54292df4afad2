"""The audit trail: who did what, for whom, with what outcome. Rows are only ever added.

Each tenant's rows are a chain that the database makes (`store/chain.py` checks it). See docs/decisions/0008.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import StoreUnavailable
from store.pool import Conn, Store, writing, writing_alone

# What the names mean never changes, and none is ever removed: exports of years ago are read by them. Add at the end.
Action = Literal[
    "search", "read", "submit", "label.change", "delete", "refresh", "key.create", "key.revoke", "groups.change",
    "list", "request", "audit.retention", "audit.query_text", "access.explain", "access.diff", "label_set.change",
    "key.rotate", "identity.add", "identity.remove", "scim.change", "fusion.change", "refresh.request", "job.cancel",
    "job.retry", "source.change", "profile.promote", "profile.rollback", "profile.drop", "retention.change",
    "policy.change", "feedback", "traces.change", "eval.schedule", "eval.alarm",
    "reranker.change",
]  # fmt: skip
ACTIONS: tuple[str, ...] = get_args(Action)

ADD = """
    INSERT INTO audit (tenant_id, action, actor, acting_for, outcome, resource, request_id, detail)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
# The chain's lock is held until the commit. So the row is a transaction of one statement, whose commit does not wait
# for the disk, and then an empty transaction does, together with everybody else's: otherwise a tenant's searches queue
# for a write to the disk each.
ADD_WITHOUT_WAIT = """
    INSERT INTO audit (tenant_id, action, actor, acting_for, outcome, resource, request_id, detail)
    SELECT %s::uuid, %s::text, %s::text, %s::text, %s::text, %s::text, %s::uuid, %s::jsonb
    FROM set_config('synchronous_commit', 'off', true) AS now WHERE now = 'off'
"""
NO_WAIT = "SET LOCAL synchronous_commit = off"  # the same, for a transaction of more than the row
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
class Hashing:
    """How a tenant's audit keeps what is asked."""

    key: bytes = field(repr=False)
    keep_queries: bool  # as text, beside its hash
    trace_rate: float = 0.0  # share of the searches whose question is kept to make judgements of


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
    with writing_alone(store) as conn:
        conn.execute(WAIT)


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
    hashing: Hashing | None = None,
) -> None:
    """Commit one row, on the disk when this returns. `detail` holds ids and counts, never content.

    `queries` are kept as keyed hashes, and as they are only where the tenant asked for that, which `hashing` tells
    when it was just read. Raises StoreUnavailable: then what the row would tell of must not be answered.
    """
    told = dict(detail or {})
    try:
        with writing_alone(store) as conn:
            if queries:
                told["queries"] = _kept(hashing or _hashing(conn, tenant_id), queries)
            row = _row(tenant_id, action, actor, acting_for, outcome, resource, request_id, told)
            added = conn.execute(ADD_WITHOUT_WAIT, row, prepare=True).rowcount
            conn.execute(WAIT)
    except psycopg.Error as error:
        raise StoreUnavailable(f"the audit took no row: {str(error).splitlines()[0]}") from error
    if added != 1:
        raise StoreUnavailable("the audit took no row")


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
    conn.execute(ADD, _row(tenant_id, action, actor, acting_for, outcome, resource, request_id, detail))


def keyed_hash(key: bytes, purpose: str, *parts: str) -> bytes:
    """HMAC-SHA256 (RFC 2104) under a tenant's hash key; equal for equal parts of one purpose."""
    return hmac.digest(key, "\0".join((purpose, *parts)).encode(errors="surrogatepass"), hashlib.sha256)


def hash_key(conn: Conn, tenant_id: UUID) -> bytes:
    """The tenant's key for what is kept only as a hash."""
    return _hashing(conn, tenant_id).key


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


def _row(
    tenant_id: UUID,
    action: Action,
    actor: str,
    acting_for: str | None,
    outcome: str,
    resource: str | None,
    request_id: UUID | None,
    detail: Mapping[str, Any] | None,
) -> tuple[Any, ...]:
    return tenant_id, action, actor, acting_for, outcome, resource, request_id, Jsonb(dict(detail or {}))


def _kept(hashing: Hashing, queries: Sequence[str]) -> list[dict[str, str]]:
    hashes = [keyed_hash(hashing.key, "query", query).hex() for query in queries]
    if not hashing.keep_queries:
        return [{"hmac": each} for each in hashes]
    return [{"hmac": each, "text": query} for each, query in zip(hashes, queries, strict=True)]


def _hashing(conn: Conn, tenant_id: UUID) -> Hashing:
    row = conn.execute(HASHING, (tenant_id,)).fetchone()
    assert row is not None, "a credential names a tenant that exists"
    return Hashing(bytes(row[0]), bool(row[1]))
