"""Is the audit what was written? Walks a tenant's chain and names the first row that is not.

The hashes are computed here, not in the database, so that a function which was replaced there deceives nobody. Someone
who owns the database can write a chain anew from any row on: only an anchor that is kept elsewhere shows that.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from core.errors import Invalid
from store.pool import Conn

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
HEAD = "SELECT tenant_id, seq, hash, at FROM audit_heads WHERE tenant_id = %s"
BASE = "SELECT tenant_id, seq, hash, at FROM audit_bases WHERE tenant_id = %s"
ROWS = """
    SELECT seq, hash, action, ARRAY[tenant_id::text, seq::text, (extract(epoch FROM at) * 1000000)::bigint::text,
           action, actor, acting_for, outcome, resource, request_id::text, detail::text] AS fields
    FROM audit_log WHERE tenant_id = %s ORDER BY seq, at
"""
START = b"\0" * 32  # stands where the first row's predecessor would


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in a chain: its last row, or its last dropped one."""

    tenant_id: UUID
    seq: int
    hash: bytes
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk found: how many rows hold, and the first that does not."""

    rows: int
    first_seq: int
    last_seq: int
    broken_seq: int | None = None
    problem: str | None = None
    anchored: bool = False  # an anchor was given, and it stands


@dataclass(frozen=True, slots=True)
class _Row:
    seq: int
    hash: bytes
    action: str
    fields: list[str | None]


class _Broken(Exception):
    """The walk ends here; (seq, problem)."""


def head(conn: Conn, tenant_id: UUID) -> Anchor:
    """The chain's last row, to be kept out of the database owner's reach. Raises Invalid when there is none."""
    found = _place(conn, HEAD, tenant_id)
    if found is None:
        raise Invalid("the audit of this tenant has no rows yet")
    return found


def verify(conn: Conn, tenant_id: UUID, anchor: Anchor | None = None) -> Verdict:
    """Walk the whole chain in one snapshot, in a fresh transaction. Raises Invalid for another tenant's anchor."""
    if anchor is not None and anchor.tenant_id != tenant_id:
        raise Invalid(f"the anchor is of tenant {anchor.tenant_id}, not of {tenant_id}")
    conn.execute(SNAPSHOT)
    base = _place(conn, BASE, tenant_id) or Anchor(tenant_id, 0, START, None)
    walk = _Walk(base)
    try:
        for row in _rows(conn, tenant_id):
            walk.step(row, anchor)
        walk.end(_place(conn, HEAD, tenant_id), anchor)
    except _Broken as broken:
        seq, problem = broken.args
        return Verdict(walk.seq - base.seq, base.seq + 1, walk.seq, seq, problem)
    return Verdict(walk.seq - base.seq, base.seq + 1, walk.seq, anchored=anchor is not None)


class _Walk:
    """From the base to the end, a row at a time."""

    def __init__(self, base: Anchor) -> None:
        self._base = base
        self._base_is_told = base.seq == 0
        self.seq, self._hash = base.seq, base.hash

    def step(self, row: _Row, anchor: Anchor | None) -> None:
        """Go on to the next row. Raises _Broken."""
        if row.seq > self.seq + 1:
            raise _Broken(self.seq + 1, "is missing")
        if row.seq <= self.seq:
            raise _Broken(row.seq, "stands there twice")
        if hashlib.sha256(self._hash + _payload(row.fields)).digest() != row.hash:
            raise _Broken(row.seq, "was altered, or stands where another was written")
        if anchor is not None and anchor.seq == row.seq and anchor.hash != row.hash:
            raise _Broken(row.seq, "is not the row that was anchored: the chain was written anew")
        if row.action == "audit.retention":
            told = json.loads(row.fields[-1] or "{}").get("base", {})
            self._base_is_told |= told == {"seq": self._base.seq, "hash": self._base.hash.hex()}
        self.seq, self._hash = row.seq, row.hash

    def end(self, last: Anchor | None, anchor: Anchor | None) -> None:
        """After the last row. Raises _Broken."""
        if not self._base_is_told:
            raise _Broken(
                self._base.seq, "and those before it are gone, and no retention is on record that dropped them"
            )
        known = max(last.seq if last else 0, anchor.seq if anchor else 0)
        if known > self.seq:
            raise _Broken(self.seq + 1, f"is missing, and all after it up to {known}: the end was cut off")
        if self.seq > 0 and (last is None or (last.seq, last.hash) != (self.seq, self._hash)):
            raise _Broken(self.seq, "is not the one that the head names")
        based = (self._base.seq, self._base.hash)
        if anchor is not None and anchor.seq <= self._base.seq and (anchor.seq, anchor.hash) != based:
            raise _Broken(anchor.seq, "is anchored, but retention dropped it: this anchor proves nothing any more")


def _payload(fields: list[str | None]) -> bytes:
    """As the SQL functions `audit_hash` and `audit_field` write it: each field behind its length in bytes."""
    parts = [None if field is None else field.encode() for field in fields]
    return b"".join(b"-," if part is None else b"%d:%b," % (len(part), part) for part in parts)


def _place(conn: Conn, statement: Any, tenant_id: UUID) -> Anchor | None:
    with conn.cursor(row_factory=class_row(Anchor)) as cursor:
        return cursor.execute(statement, (tenant_id,)).fetchone()


def _rows(conn: Conn, tenant_id: UUID) -> Iterator[_Row]:
    with conn.cursor(name="audit_walk", row_factory=class_row(_Row)) as cursor:
        cursor.itersize = 5000
        yield from cursor.execute(ROWS, (tenant_id,))
