"""Sources: where documents come from, what was last seen of them, and when to look again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import Conflict, Invalid, NotFound
from core.records import AccessScope, Labels, Source
from store import access, attachments, renames
from store.pool import Conn

ENSURE = """
    INSERT INTO sources (tenant_id, name, kind, label_set_id) VALUES (%s, %s, 'api', %s)
    ON CONFLICT (tenant_id, name) DO NOTHING
"""
ADD = """
    INSERT INTO sources (tenant_id, name, kind, config, label_set_id, schedule, max_deleted_share, next_due_at,
                         timezone, jitter_s)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
READ = """
    SELECT s.id, s.tenant_id, s.name, s.kind, s.config, l.allow, l.deny, l.classification, s.schedule,
           s.max_deleted_share, s.last_success_at, s.paused_at, s.timezone, s.jitter_s, s.next_due_at,
           s.content_as_of, s.permissions_as_of, coalesce(extract(epoch FROM now() - least(
               CASE WHEN s.next_due_at < now() THEN s.next_due_at END,
               (SELECT min(j.due_at) FROM jobs j WHERE j.source_id = s.id AND j.kind = 'refresh'
                AND j.detail->>'permissions_only' IS DISTINCT FROM 'true'
                AND j.due_at > coalesce(s.content_as_of, '-infinity')))), 0)::float8 AS lag_s
    FROM sources s JOIN label_sets l ON l.id = s.label_set_id
"""
BY_NAME = READ + " WHERE s.tenant_id = %s AND s.name = %s"
BY_ID = READ + " WHERE s.tenant_id = %s AND s.id = %s"
ALL = (
    READ
    + """
    WHERE s.tenant_id = %(tenant)s AND (%(label_sets)s::int[] IS NULL OR s.label_set_id = ANY(%(label_sets)s))
    ORDER BY s.name
"""
)
DUE = """
    SELECT id, tenant_id, schedule, next_due_at, timezone, jitter_s FROM sources
    WHERE next_due_at <= now() AND paused_at IS NULL FOR UPDATE SKIP LOCKED
"""
PAUSE = "UPDATE sources SET paused_at = coalesce(paused_at, now()) WHERE id = %s"
RESUME = "UPDATE sources SET paused_at = NULL WHERE id = %s"
SET_DUE = "UPDATE sources SET next_due_at = %s WHERE id = %s"
SUCCEEDED = """
    UPDATE sources SET last_success_at = now(), content_as_of = %(at)s, permissions_as_of = %(at)s, state = %(state)s
    WHERE id = %(id)s
"""
PERMITTED = "UPDATE sources SET permissions_as_of = %s WHERE id = %s"
REMEMBER = "UPDATE sources SET state = state || %s WHERE id = %s"
STATE = "SELECT state FROM sources WHERE id = %s"
KNOWN = """
    SELECT d.fingerprint, v.blob_key FROM documents d
    LEFT JOIN versions v ON v.document_id = d.id AND v.version = d.latest_version
    WHERE d.source_id = %s AND d.external_id = %s
"""
SEEN = """
    SELECT d.id AS document_id, d.external_id, d.fingerprint, v.blob_key, v.state, d.label_set_id, d.latest_version
    FROM documents d LEFT JOIN versions v ON v.document_id = d.id AND v.version = d.latest_version
    WHERE d.source_id = %s AND d.parent_id IS NULL
"""
# What is left of a source that is being removed: it is read no more, and by this name nobody pushes to it.
RETIRE = """
    UPDATE sources SET kind = 'api', name = %s, config = '{}', state = '{}', schedule = NULL, next_due_at = NULL,
        paused_at = NULL
    WHERE id = %s
"""
COUNT_DOCUMENTS = "SELECT count(*) FROM documents WHERE source_id = %s"
SOME_DOCUMENTS = "SELECT id FROM documents WHERE source_id = %s LIMIT %s"
LOCK = "SELECT FROM sources WHERE id = %s FOR UPDATE"
DROP = "DELETE FROM sources WHERE id = %s"
SET_MARKS = "UPDATE documents SET fingerprint = %s, permissions = %s WHERE id = %s"
SET_PERMISSIONS = "UPDATE documents SET permissions = %s WHERE id = %s"
READ_AGAIN = "UPDATE documents SET fingerprint = NULL, permissions = NULL WHERE id = %s"
RENAME_FILE = "UPDATE versions SET filename = %s WHERE document_id = %s"
RETITLE = """
    UPDATE documents d SET title = coalesce(v.title, v.filename)
    FROM versions v WHERE d.id = %s AND v.document_id = d.id AND v.version = d.current_version
"""


@dataclass(frozen=True, slots=True)
class SeenDocument:
    """What the store holds of one of a source's documents."""

    document_id: UUID
    external_id: str
    fingerprint: str | None
    blob_key: str | None  # sha256 of the latest version's bytes
    state: str | None  # of the latest version
    label_set_id: int
    latest_version: int


@dataclass(frozen=True, slots=True)
class DueSource:
    """A source whose refresh time has come."""

    id: UUID
    tenant_id: UUID
    schedule: str
    next_due_at: datetime
    timezone: str
    jitter_s: int


def ensure_api_source(conn: Conn, tenant_id: UUID, name: str) -> Source:
    """The source of that name; a new one takes documents that are pushed, and shows them to nobody by default.

    Raises Invalid for the name of a source that is refreshed.
    """
    conn.execute(ENSURE, (tenant_id, name, access.intern_labels(conn, tenant_id, Labels())))
    source = named(conn, tenant_id, name)
    if source.kind != "api":
        raise Invalid(f"source {name!r} is a {source.kind}: its refresh would delete what is pushed to it")
    return source


def add(
    conn: Conn,
    tenant_id: UUID,
    name: str,
    kind: str,
    config: dict[str, Any],
    labels: Labels,
    schedule: str | None,
    max_deleted_share: float,
    next_due_at: datetime | None,
    timezone: str = "UTC",
    jitter_s: int = 0,
) -> UUID:
    """A new source's id. Raises Conflict when the name is taken, InvalidLabel."""
    label_set_id = access.intern_labels(conn, tenant_id, labels)
    values = (tenant_id, name, kind, Jsonb(config), label_set_id, schedule, max_deleted_share, next_due_at, timezone,
              jitter_s)  # fmt: skip
    try:
        row = conn.execute(ADD, values).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"a source named {name!r} exists: choose another name") from error
    assert row is not None
    return UUID(str(row[0]))


def named(conn: Conn, tenant_id: UUID, name: str) -> Source:
    """A source by name. Raises NotFound."""
    return _one(conn.execute(BY_NAME, (tenant_id, name)).fetchone(), f"there is no source {name!r}")


def by_id(conn: Conn, tenant_id: UUID, source_id: UUID) -> Source:
    """A source by id. Raises NotFound."""
    return _one(conn.execute(BY_ID, (tenant_id, source_id)).fetchone(), "there is no such source")


def all_of(conn: Conn, tenant_id: UUID, within: AccessScope | None = None) -> list[Source]:
    """The tenant's sources by name; of a scope, those whose own labels it sees."""
    label_sets = None if within is None else list(within.label_set_ids)
    return [_source(row) for row in conn.execute(ALL, {"tenant": tenant_id, "label_sets": label_sets}).fetchall()]


def take_due(conn: Conn) -> list[DueSource]:
    """Sources whose time has come, locked for this transaction; another scheduler's are passed over."""
    with conn.cursor(row_factory=class_row(DueSource)) as cursor:
        return cursor.execute(DUE).fetchall()


def set_due(conn: Conn, source_id: UUID, at: datetime | None) -> None:
    """When the source is to be refreshed next; None: only on request."""
    conn.execute(SET_DUE, (at, source_id))


def set_paused(conn: Conn, source_id: UUID, paused: bool) -> None:
    """Whether the source is left alone; its due time is kept, and has come when it is taken up again."""
    conn.execute(PAUSE if paused else RESUME, (source_id,))


def retire(conn: Conn, source_id: UUID, name: str) -> None:
    """The source is not refreshed any more, and goes by that name; its documents stay."""
    conn.execute(RETIRE, (name, source_id))


def count_documents(conn: Conn, source_id: UUID) -> int:
    """How many documents the source has."""
    row = conn.execute(COUNT_DOCUMENTS, (source_id,)).fetchone()
    return int(row[0]) if row else 0


def some_documents(conn: Conn, source_id: UUID, limit: int) -> list[UUID]:
    """Some of the source's documents."""
    return [row[0] for row in conn.execute(SOME_DOCUMENTS, (source_id, limit)).fetchall()]


def is_empty(conn: Conn, source_id: UUID) -> bool:
    """Whether the source has no document, and gets none before this transaction ends."""
    conn.execute(LOCK, (source_id,))
    return not some_documents(conn, source_id, 1)


def drop(conn: Conn, source_id: UUID) -> None:
    """Delete the source with everything that names it: of one that `is_empty`, its jobs."""
    conn.execute(DROP, (source_id,))


def succeeded(conn: Conn, source_id: UUID, as_of: datetime, state: Mapping[str, Any]) -> None:
    """Note a refresh that ran to its end: of what the source held then, and what its reader keeps for the next."""
    conn.execute(SUCCEEDED, {"id": source_id, "at": as_of, "state": Jsonb(dict(state))})


def permitted(conn: Conn, source_id: UUID, as_of: datetime) -> None:
    """Note a refresh of permissions alone."""
    conn.execute(PERMITTED, (as_of, source_id))


def remember(conn: Conn, source_id: UUID, state: Mapping[str, Any]) -> None:
    """Keep this of the source's reader's state, before the refresh is at its end."""
    conn.execute(REMEMBER, (Jsonb(dict(state)), source_id))


def state_of(conn: Conn, source_id: UUID) -> dict[str, Any]:
    """What the source's reader kept. Raises NotFound."""
    row = conn.execute(STATE, (source_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such source")
    return dict(row[0])


def known(conn: Conn, source_id: UUID, external_id: str) -> tuple[str | None, str | None]:
    """(fingerprint, blob key of the latest version) of a document; None for what is not held."""
    row = conn.execute(KNOWN, (source_id, external_id)).fetchone()
    return (None, None) if row is None else (row[0], row[1])


def seen(conn: Conn, source_id: UUID) -> dict[str, SeenDocument]:
    """The source's documents by external id."""
    with conn.cursor(row_factory=class_row(SeenDocument)) as cursor:
        return {row.external_id: row for row in cursor.execute(SEEN, (source_id,)).fetchall()}


def set_marks(conn: Conn, document_id: UUID, fingerprint: str | None, permissions: str) -> None:
    """Remember the source's own sign of change of a document, and a digest of the labels that it gave."""
    conn.execute(SET_MARKS, (fingerprint, permissions, document_id))


def set_permissions(conn: Conn, document_id: UUID, permissions: str) -> None:
    """Remember a digest of the labels that the source gave."""
    conn.execute(SET_PERMISSIONS, (permissions, document_id))


def read_again(conn: Conn, document_id: UUID) -> None:
    """Forget what was seen: the next refresh reads the item, whatever it looks like then."""
    conn.execute(READ_AGAIN, (document_id,))


def rename(conn: Conn, document_id: UUID, external_id: str, filename: str | None) -> None:
    """The same bytes under another name: the document keeps its id, versions and vectors."""
    renames.rename(conn, document_id, external_id)
    attachments.rename(conn, document_id, external_id)
    conn.execute(RENAME_FILE, (filename, document_id))
    conn.execute(RETITLE, (document_id,))  # a document without a title goes by its file's name


def _one(row: tuple[Any, ...] | None, absent: str) -> Source:
    if row is None:
        raise NotFound(absent)
    return _source(row)


def _source(row: tuple[Any, ...]) -> Source:
    source_id, tenant_id, name, kind, config, allow, deny, classification, *rest = row
    return Source(source_id, tenant_id, name, kind, config, Labels(tuple(allow), tuple(deny), classification), *rest)
