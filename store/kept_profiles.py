"""Profiles that a tenant's index is kept under beside the live one, and the pointer that says which one is live.

A candidate is built from the stored canonical texts. What progress it has made is nowhere written down: a document
is behind when its current version has chunks under the live profile and none under the other. Relabelling and erasing
reach the rows of every profile by themselves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import class_row

from core.errors import Conflict, NotFound
from core.flags import Flag
from core.records import Chunk, Element, ParsedDocument, Profile
from store import changes, chunks
from store.chunks import Owner
from store.migrate import as_owner
from store.pool import Conn

Role = Literal["candidate", "previous"]

KEEP = "INSERT INTO kept_profiles (tenant_id, profile_id, role) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
KEPT = """
    SELECT p.id, p.name, p.model, p.dimensions, p.precision, p.chunk_tokens, p.chunker, k.role, k.since
    FROM kept_profiles k JOIN profiles p ON p.id = k.profile_id WHERE k.tenant_id = %s ORDER BY k.since
"""
LIVE_NAME = "SELECT p.name FROM tenants t JOIN profiles p ON p.id = t.live_profile WHERE t.id = %s"
TENANTS = "SELECT DISTINCT tenant_id FROM kept_profiles"
SETTINGS = """
    SELECT DISTINCT p.id, p.name, p.model, p.dimensions, p.precision, p.chunk_tokens, p.chunker FROM profiles p
    JOIN (SELECT profile_id FROM kept_profiles UNION SELECT live_profile FROM tenants) used ON used.profile_id = p.id
"""
STILL_KEPT = """
    SELECT EXISTS (SELECT FROM kept_profiles WHERE tenant_id = %(tenant)s AND profile_id = %(profile)s FOR KEY SHARE)
        OR EXISTS (SELECT FROM tenants WHERE id = %(tenant)s AND live_profile = %(profile)s)
"""
# What follows takes a tenant and a profile, and looks at the tenant's live one beside it.
IS_BEHIND = """
    d.tenant_id = %(tenant)s
    AND EXISTS (SELECT FROM chunks WHERE profile_id = (SELECT live_profile FROM tenants WHERE id = %(tenant)s)
                AND document_id = d.id AND version = d.current_version)
    AND NOT EXISTS (SELECT FROM chunks WHERE profile_id = %(profile)s
                    AND document_id = d.id AND version = d.current_version)
"""
COUNTED = "SELECT count(*) FROM documents d WHERE"
COUNT_BEHIND = COUNTED + IS_BEHIND
STORED = """
    SELECT d.id, d.created_at, v.version, v.title, v.mime_type, v.text, v.elements, v.flags, v.language
    FROM documents d JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
    WHERE
"""
PAGE = """
    AND (%(after)s::timestamptz IS NULL OR (d.created_at, d.id) > (%(after)s, %(after_id)s))
    ORDER BY d.created_at, d.id LIMIT %(limit)s
"""
BEHIND = STORED + IS_BEHIND + PAGE
LOCK = "SELECT current_version, label_set_id FROM documents WHERE id = %s FOR UPDATE"
THERE = "SELECT FROM chunks WHERE profile_id = %s AND document_id = %s AND version = %s LIMIT 1"

# Publications hold it together, see store.chunks; who flips holds it alone.
HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('live:' || %s::text, 0))"
FLIP = """
    WITH flipped AS (
        UPDATE tenants t SET live_profile = %(to)s FROM tenants before
        WHERE t.id = %(tenant)s AND before.id = t.id AND before.live_profile <> %(to)s RETURNING before.live_profile
    ), gone AS (
        DELETE FROM kept_profiles WHERE tenant_id = %(tenant)s AND profile_id = %(to)s
    )
    INSERT INTO kept_profiles (tenant_id, profile_id, role) SELECT %(tenant)s, live_profile, 'previous' FROM flipped
    ON CONFLICT (tenant_id, profile_id) DO UPDATE SET role = 'previous', since = now()
"""
NOT_LIVE_FOR = """
    SELECT extract(epoch FROM now() - since)::float8 FROM kept_profiles
    WHERE tenant_id = %s AND profile_id = %s AND role = 'previous'
"""
RELEASE = "DELETE FROM kept_profiles WHERE tenant_id = %s AND profile_id = %s"
DROP_ROWS = """
    DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE profile_id = %s AND tenant_id = %s LIMIT %s)
"""
DROP_FIGURES = (
    "DELETE FROM label_set_chunks WHERE profile_id = %s AND tenant_id = %s",
    "DELETE FROM calibrations WHERE profile_id = %s AND tenant_id = %s",
)
TRIES, PAUSE_S = 60, 1.0  # for the lock that dropping tables takes
IN_USE = """
    SELECT EXISTS (SELECT FROM tenants WHERE live_profile = %(profile)s)
        OR EXISTS (SELECT FROM kept_profiles WHERE profile_id = %(profile)s)
        OR EXISTS (SELECT FROM chunks WHERE profile_id = %(profile)s)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A profile beside the live one."""

    profile: Profile
    role: Role
    since: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """A document's current version as it was parsed."""

    document_id: UUID
    created_at: datetime
    version: int
    title: str | None
    parsed: ParsedDocument


def keep(conn: Conn, tenant_id: UUID, profile_id: int) -> None:
    """Have the tenant's index kept under this profile too. Raises Conflict when it is the live one."""
    row = conn.execute(chunks.LIVE, (tenant_id,)).fetchone()
    if row is not None and row[0] == profile_id:
        raise Conflict("that is the live profile: give the new settings another name")
    conn.execute(KEEP, (tenant_id, profile_id, "candidate"))


def kept(conn: Conn, tenant_id: UUID) -> list[Kept]:
    """The profiles beside the live one, oldest first."""
    rows = conn.execute(KEPT, (tenant_id,)).fetchall()
    return [Kept(Profile(*row[:7]), row[7], row[8]) for row in rows]


def kept_named(conn: Conn, tenant_id: UUID, name: str) -> Kept:
    """One of them by its name. Raises NotFound, and Conflict when it is the live one."""
    found = next((each for each in kept(conn, tenant_id) if each.profile.name == name), None)
    if found is None:
        live = conn.execute(LIVE_NAME, (tenant_id,)).fetchone()
        if live is not None and live[0] == name:
            raise Conflict(f"{name} is the live profile")
        raise NotFound(f"no profile {name!r} is kept beside the live one: see `citadel profile list`")
    return found


def tenants(conn: Conn) -> list[UUID]:
    """The tenants that keep any."""
    return [tenant_id for (tenant_id,) in conn.execute(TENANTS).fetchall()]


def in_use(conn: Conn) -> list[Profile]:
    """Every profile that some tenant lives on or keeps: those whose models a process may be asked for."""
    with conn.cursor(row_factory=class_row(Profile)) as cursor:
        return cursor.execute(SETTINGS).fetchall()


def count_behind(conn: Conn, tenant_id: UUID, profile_id: int) -> int:
    """How many documents the profile lacks, or has another version of."""
    row = conn.execute(COUNT_BEHIND, {"tenant": tenant_id, "profile": profile_id}).fetchone()
    return int(row[0]) if row else 0


def behind(conn: Conn, tenant_id: UUID, profile_id: int, after: Stored | None, limit: int) -> list[Stored]:
    """Up to `limit` of those documents, oldest first, that come after this one."""
    values: dict[str, Any] = {"tenant": tenant_id, "profile": profile_id, "limit": limit}
    values |= {"after": after and after.created_at, "after_id": after and after.document_id}
    return [_stored(row) for row in conn.execute(BEHIND, values).fetchall()]


def add(
    conn: Conn,
    tenant_id: UUID,
    profile_id: int,
    stored: Stored,
    pieces: Sequence[Chunk],
    vectors: NDArray[np.float32],
    codes: Sequence[bytes],
) -> bool:
    """Put a version under the profile, with the labels that are in force; False when there is no need any more.

    Raises NotFound when the profile is not kept any more.
    """
    row = conn.execute(LOCK, (stored.document_id,)).fetchone()
    still = conn.execute(STILL_KEPT, {"tenant": tenant_id, "profile": profile_id}).fetchone()
    if not still or not still[0]:
        raise NotFound("the profile was dropped meanwhile")
    there = conn.execute(THERE, (profile_id, stored.document_id, stored.version)).fetchone() is not None
    if row is None or row[0] != stored.version or there:
        return False
    owner = Owner(tenant_id, profile_id, stored.document_id, stored.version)
    chunks.add_rows(conn, owner, stored.parsed.text, pieces, vectors, codes)
    changes.move_vectors(conn, tenant_id, stored.document_id, row[1])
    changes.log(conn, tenant_id, stored.document_id, stored.version, "index")  # for the profile's replicas
    return True


def hold_publications(conn: Conn, tenant_id: UUID) -> None:
    """Until this transaction ends, none of the tenant's versions becomes current."""
    conn.execute(HOLD, (tenant_id,))


def flip(conn: Conn, tenant_id: UUID, profile_id: int) -> None:
    """From this commit on the tenant lives on the profile, and keeps the one before. Under `hold_publications`."""
    conn.execute(FLIP, {"tenant": tenant_id, "to": profile_id})


def not_live_for_s(conn: Conn, tenant_id: UUID, profile_id: int) -> float:
    """Seconds since the tenant last lived on the profile: searches that began before may still look at it."""
    row = conn.execute(NOT_LIVE_FOR, (tenant_id, profile_id)).fetchone()
    return float("inf") if row is None else float(row[0])


def release(conn: Conn, tenant_id: UUID, profile_id: int) -> None:
    """Keep the profile no longer; what is there of it is for `drop_rows`."""
    conn.execute(RELEASE, (tenant_id, profile_id))


def drop_rows(conn: Conn, tenant_id: UUID, profile_id: int, limit: int) -> int:
    """Delete up to so many of the tenant's chunks under a profile, with all that hangs on them; returns how many."""
    gone = conn.execute(DROP_ROWS, (profile_id, tenant_id, limit)).rowcount
    if not gone:
        for statement in DROP_FIGURES:
            conn.execute(statement.encode(), (profile_id, tenant_id))
    return gone


def is_used(conn: Conn, profile_id: int) -> bool:
    """Whether any tenant lives on the profile, keeps it, or has chunks under it. As maintenance, which sees all."""
    row = conn.execute(IN_USE, {"profile": profile_id}).fetchone()
    return bool(row and row[0])


def drop_tables(admin_url: str, profile_id: int) -> None:
    """Drop the profile's tables and its name. Raises Conflict when it is used, or the tables are not free for long.

    Their foreign keys lock `chunks` too, for a moment; searches that begin meanwhile wait behind this, so it does not
    wait itself but tries again.
    """
    for _ in range(TRIES):
        try:
            with as_owner(admin_url) as conn:
                conn.execute("SET LOCAL lock_timeout = '250ms'")
                conn.execute("CALL drop_profile(%s)", (profile_id,))
            return
        except psycopg.errors.ForeignKeyViolation as error:
            raise Conflict("another tenant began to use the profile: its tables stay") from error
        except psycopg.errors.LockNotAvailable:
            time.sleep(PAUSE_S)
    raise Conflict("somebody reads the chunks all the time: drop the profile again later")


def _stored(row: tuple[Any, ...]) -> Stored:
    document_id, created_at, version, title, mime_type, text, elements, flags, language = row
    parsed = ParsedDocument(text, tuple(Element(**each) for each in elements), mime_type or "", title,
                            flags=tuple(Flag(**each) for each in flags), language=language)  # fmt: skip
    return Stored(document_id, created_at, version, title, parsed)
