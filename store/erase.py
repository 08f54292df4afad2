"""Erasure: the one way by which a document leaves, and the tombstone that it leaves behind.

First one transaction takes it away from every reader. Then, after that commit, its bytes go from the blob store and its
jobs lose what they say about it; the tombstone keeps what of this is still to do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import NotFound, VersionConflict
from store import asked, attachments, audit, changes, tokens
from store.pool import Conn, one_row

NAMED = "SELECT external_id FROM documents WHERE id = ANY(%s)"
NAMES = "SELECT source_id, external_id FROM documents WHERE tenant_id = %s AND id = %s"
# Reports of refreshes name files. Before the document's lock: refreshes take both in this order.
SCRUB_REPORTS = """
    UPDATE jobs SET detail = jsonb_set(detail, '{problems}', (
        SELECT coalesce(jsonb_agg(p), '[]') FROM jsonb_array_elements_text(detail -> 'problems') p
        WHERE NOT starts_with(p, %(name)s || ': ')))
    WHERE source_id = %(source)s AND EXISTS (
        SELECT FROM jsonb_array_elements_text(detail -> 'problems') p WHERE starts_with(p, %(name)s || ': '))
"""
# Judgements name documents and quote them.
SCRUB_JUDGEMENTS = """
    UPDATE golden_queries SET line = line || jsonb_build_object(
        'relevant', (SELECT coalesce(jsonb_agg(j), '[]') FROM jsonb_array_elements(line -> 'relevant') j
                     WHERE j ->> 'document' <> %(name)s),
        'forbidden', (line -> 'forbidden') - %(name)s::text)
    WHERE tenant_id = %(tenant)s AND (line -> 'forbidden' ? %(name)s
        OR line -> 'relevant' @> jsonb_build_array(jsonb_build_object('document', %(name)s::text)))
"""
SCRUB_LISTED = "DELETE FROM listed WHERE source_id = %(source)s AND external_id = %(name)s"
SCRUB_LISTING = """
    UPDATE listings SET problems = ARRAY(SELECT p FROM unnest(problems) p WHERE NOT starts_with(p, %(name)s || ': '))
    WHERE source_id = %(source)s AND EXISTS (SELECT FROM unnest(problems) p WHERE starts_with(p, %(name)s || ': '))
"""
LOCK = "SELECT latest_version FROM documents WHERE tenant_id = %s AND id = %s FOR UPDATE"
BLOBS = "SELECT DISTINCT blob_key FROM versions WHERE document_id = %s ORDER BY 1"
DELETE_VECTORS = "DELETE FROM {} WHERE document_id = %s"
DELETE_CHUNKS = "DELETE FROM chunks WHERE document_id = %s RETURNING id"
DELETE_VERSIONS = "DELETE FROM versions WHERE document_id = %s"
DELETE = "DELETE FROM documents WHERE id = %s"
BURY = """
    INSERT INTO tombstones (document_id, tenant_id, source_id, external_id_hash, erased_by, unfinished, receipt)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (document_id) DO UPDATE SET erased_at = now(), erased_by = excluded.erased_by,
        unfinished = excluded.unfinished, receipt = excluded.receipt
    RETURNING erased_at
"""
# A worker that still has the job finds its lease gone.
END_JOBS = """
    UPDATE jobs SET error = NULL, lease_token = NULL, lease_until = NULL, updated_at = now(),
        detail = CASE WHEN state IN ('done', 'failed', 'quarantined', 'cancelled') THEN '{"erased": true}'::jsonb
                      ELSE '{"erased": true, "superseded": true}' END,
        state = CASE WHEN state IN ('done', 'failed', 'quarantined', 'cancelled') THEN state ELSE 'done' END
    WHERE tenant_id = %s AND document_id = %s AND detail IS DISTINCT FROM '{"erased": true}'
"""
FINISHED = """
    UPDATE tombstones SET unfinished = NULL, receipt = receipt || %s WHERE tenant_id = %s AND document_id = %s
    RETURNING receipt
"""
UNFINISHED = """
    SELECT tenant_id, document_id, unfinished FROM tombstones
    WHERE unfinished IS NOT NULL AND erased_at < now() - make_interval(secs => %s) ORDER BY erased_at LIMIT 100
"""
READ = """
    SELECT document_id, source_id, external_id_hash, erased_at, erased_by, unfinished IS NULL AS finished, receipt
    FROM tombstones WHERE tenant_id = %s
"""
READ_ONE = READ + " AND document_id = %s"
READ_ALL = READ + " ORDER BY erased_at, document_id"
EXISTING = "SELECT id FROM documents WHERE tenant_id = %s AND id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Taken:
    """What the first transaction took, for what comes after its commit."""

    document_id: UUID
    erased_at: datetime
    blob_keys: tuple[str, ...]
    chunk_ids: tuple[int, ...]
    below: tuple["Taken", ...] = ()  # its attachments, which go with it


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That a document was erased, and what is known of how."""

    document_id: UUID
    source_id: UUID
    external_id_hash: bytes
    erased_at: datetime
    erased_by: str
    finished: bool
    receipt: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Told:
    """Whom the audit names."""

    tenant_id: UUID
    by: str
    acting_for: str | None
    request_id: UUID | None


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows went."""

    versions: int
    chunks: int
    vectors: int  # of every profile
    codes: int  # of tokens, of every profile


def take_away(
    conn: Conn,
    tenant_id: UUID,
    document_id: UUID,
    by: str,
    expected: int | None = None,
    request_id: UUID | None = None,
    acting_for: str | None = None,
) -> Taken:
    """Remove the rows of the document and of its attachments, bury them, and record who did; after the commit no reader
    sees them.

    Call `finish` for each after the commit. Raises NotFound, and VersionConflict when `expected` is not the latest
    version.
    """
    names = conn.execute(NAMES, (tenant_id, document_id)).fetchone()
    if names is not None:
        for statement in (SCRUB_REPORTS, SCRUB_LISTED, SCRUB_LISTING):
            conn.execute(statement, {"source": names[0], "name": names[1]})
        conn.execute(SCRUB_JUDGEMENTS, {"tenant": tenant_id, "name": names[1]})
    row = conn.execute(LOCK, (tenant_id, document_id)).fetchone()
    if row is None or names is None:
        raise NotFound("there is no such document")
    if expected is not None and expected != row[0]:
        raise VersionConflict(f"the document is at version {row[0]}, not {expected}: read it again")
    attached = attachments.below(conn, document_id)
    for (name,) in conn.execute(NAMED, (attached,)).fetchall():
        conn.execute(SCRUB_JUDGEMENTS, {"tenant": tenant_id, "name": name})
    told = _Told(tenant_id, by, acting_for, request_id)
    below = tuple(_bury(conn, child, told) for child in attached)
    return replace(_bury(conn, document_id, told), below=below)


def _bury(conn: Conn, document_id: UUID, told: _Told) -> Taken:
    names = conn.execute(NAMES, (told.tenant_id, document_id)).fetchone()
    assert names is not None, "its row is held"
    asked.scrub(conn, told.tenant_id, document_id, names[1])
    keys = [str(key) for (key,) in conn.execute(BLOBS, (document_id,)).fetchall()]
    rows, chunk_ids = _delete_rows(conn, document_id)
    seq = changes.log(conn, told.tenant_id, document_id, None, "delete")
    digest = audit.keyed_hash(audit.hash_key(conn, told.tenant_id), "external_id", str(names[0]), names[1])
    values = (document_id, told.tenant_id, names[0], digest, told.by, keys, Jsonb({"rows": asdict(rows), "seq": seq}))
    buried = conn.execute(BURY, values).fetchone()
    assert buried is not None
    audit.add(conn, told.tenant_id, "delete", actor=told.by, acting_for=told.acting_for,
              resource=f"document:{document_id}", request_id=told.request_id, detail=asdict(rows))  # fmt: skip
    return Taken(document_id, buried[0], tuple(keys), chunk_ids)


def finish(conn: Conn, tenant_id: UUID, document_id: UUID, told: Mapping[str, Any]) -> None:
    """Nothing is left to do: its open jobs end as superseded, all of them say nothing of it, and `told` is kept."""
    conn.execute(END_JOBS, (tenant_id, document_id))
    conn.execute(FINISHED, (Jsonb(dict(told)), tenant_id, document_id))


def unfinished(conn: Conn, older_than_s: float) -> list[tuple[UUID, UUID, list[str]]]:
    """(tenant, document, blob keys) of erasures whose second part did not come to its end."""
    return [(t, d, keys) for t, d, keys in conn.execute(UNFINISHED, (older_than_s,)).fetchall()]


def tombstone(conn: Conn, tenant_id: UUID, document_id: UUID) -> Tombstone:
    """A document's tombstone. Raises NotFound."""
    return one_row(conn, Tombstone, READ_ONE, (tenant_id, document_id), f"document {document_id} was not erased here")


def tombstones(conn: Conn, tenant_id: UUID) -> list[Tombstone]:
    """All of the tenant's, oldest first."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(READ_ALL, (tenant_id,)).fetchall()


def still_here(conn: Conn, tenant_id: UUID, document_ids: Iterable[UUID]) -> list[UUID]:
    """Those of the documents that exist, as after a restore from a backup."""
    return [found for (found,) in conn.execute(EXISTING, (tenant_id, list(document_ids))).fetchall()]


def delete_index(conn: Conn, document_id: UUID) -> tuple[int, int, tuple[int, ...]]:
    """Delete the document's vectors, codes and chunks, of every profile; returns how many, and the chunks' ids."""
    vectors = codes = 0
    for (profile_id,) in conn.execute(changes.PROFILES).fetchall():
        statement = sql.SQL(DELETE_VECTORS).format(changes.vectors_table(profile_id))
        vectors += conn.execute(statement, (document_id,)).rowcount
        codes += tokens.delete(conn, profile_id, document_id)
    return (
        vectors,
        codes,
        tuple(int(chunk_id) for (chunk_id,) in conn.execute(DELETE_CHUNKS, (document_id,)).fetchall()),
    )


def _delete_rows(conn: Conn, document_id: UUID) -> tuple[Rows, tuple[int, ...]]:
    vectors, codes, chunk_ids = delete_index(conn, document_id)
    versions = conn.execute(DELETE_VERSIONS, (document_id,)).rowcount
    conn.execute(DELETE, (document_id,))
    return Rows(versions, len(chunk_ids), vectors, codes), chunk_ids
