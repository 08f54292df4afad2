"""Chunks and vectors: published in one transaction, found and read under row-level security."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import Invalid, ProfileMoved
from core.records import AccessScope, Chunk, ChunkRow, Lease, ParsedDocument, Place
from store import attachments, changes, copies, jobs, policies, tokens
from store.filters import Value
from store.pool import Conn

TO_INDEX = """
    SELECT v.blob_key, v.filename, v.mime_type, v.title FROM versions v
    JOIN documents d ON d.id = v.document_id
    WHERE v.document_id = %s AND v.version = %s AND v.version > coalesce(d.current_version, 0)
"""
# Alone in its statement: what the lock was waited for is seen by the next one.
HOLD_LIVE = "SELECT pg_advisory_xact_lock_shared(hashtextextended('live:' || %s::text, 0))"
LIVE = "SELECT live_profile FROM tenants WHERE id = %s"
LOCK_CURRENT = "SELECT coalesce(current_version, 0) FROM documents WHERE id = %s FOR UPDATE"
DROP_CHUNKS = "DELETE FROM chunks WHERE document_id = %s AND profile_id = %s"
ADD_CHUNKS = """
    INSERT INTO chunks (tenant_id, profile_id, document_id, version, ordinal, start_offset, end_offset, page_start,
                        page_end, heading_path, embed_prefix, tokens, text, flags)
    SELECT %(tenant)s, %(profile)s, %(document)s, %(version)s, c.ordinal, c.start, c."end", c.page_start, c.page_end,
           c.heading_path, c.embed_prefix, c.tokens, c.text, c.flags
    FROM jsonb_to_recordset(%(chunks)s) AS c (ordinal int, start int, "end" int, page_start int, page_end int,
         heading_path text[], embed_prefix text, tokens int, text text, flags text[])
    ORDER BY c.ordinal
    RETURNING id, ordinal
"""
ADD_VECTOR = """
    INSERT INTO {} (chunk_id, tenant_id, document_id, label_set_id, embedding)
    SELECT %s, v.tenant_id, v.document_id, v.label_set_id, %s
    FROM versions v WHERE v.document_id = %s AND v.version = %s
"""
SET_TEXT = """
    UPDATE versions SET state = 'indexed', text = %s, elements = %s, mime_type = %s, title = coalesce(%s, title, %s),
        warnings = %s, language = %s, flags = %s, screened = %s
    WHERE document_id = %s AND version = %s
"""
SUPERSEDE = "UPDATE versions SET state = 'superseded' WHERE document_id = %s AND version < %s AND state = 'pending'"
FLIP = """
    UPDATE documents d SET current_version = v.version, updated_at = now(),
        label_set_id = CASE WHEN d.parent_id IS NULL THEN v.label_set_id ELSE d.label_set_id END,
        title = coalesce(v.title, v.filename)
    FROM versions v WHERE d.id = %s AND v.document_id = d.id AND v.version = %s
"""
VISIBLE_IDS = """
    SELECT chunk_id FROM {vectors} WHERE tenant_id = %(tenant)s AND label_set_id = ANY(%(label_sets)s::int[]) {filter}
    ORDER BY chunk_id
"""
PLACES = """
    SELECT d.external_id, c.start_offset AS start, c.end_offset AS "end" FROM chunks c
    JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    WHERE c.tenant_id = %s AND c.profile_id = %s
"""
PLACES_OF = """
    SELECT c.id, d.external_id, c.start_offset, c.end_offset FROM chunks c
    JOIN documents d ON d.id = c.document_id AND d.current_version = c.version WHERE c.id = ANY(%s::bigint[])
"""
OF_DOCUMENTS = """
    SELECT c.id, d.id, d.external_id, c.start_offset, c.end_offset FROM chunks c
    JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    WHERE d.tenant_id = %s AND c.profile_id = %s AND d.external_id = ANY(%s)
"""
MATCHING = "AND document_id IN (SELECT id FROM documents d WHERE {})"
DATES = "SELECT c.id, {} FROM chunks c JOIN documents d ON d.id = c.document_id WHERE c.id = ANY(%s)"
INDEXED_TEXTS = """
    SELECT c.id, c.embed_prefix, c.text, v.language
    FROM chunks c LEFT JOIN versions v ON v.document_id = c.document_id AND v.version = c.version WHERE c.id = ANY(%s)
"""
ROWS = """
    SELECT c.id AS chunk_id, c.document_id, d.external_id, s.name AS source, c.version, d.title, d.uri, c.ordinal,
           c.start_offset AS start, c.end_offset AS "end", c.page_start, c.page_end, c.heading_path, c.tokens,
           c.text, c.flags, d.parent_id, d.metadata ->> 'superseded_by' AS successor
    FROM chunks c
    JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    JOIN sources s ON s.id = d.source_id
    WHERE c.id = ANY(%s::bigint[])
"""
PARENTS = "SELECT id, coalesce(title, external_id) FROM documents WHERE id = ANY(%s)"
# By itself, of values: joined to ROWS, row-level security keeps the name, which `->>` gives, from the index (15 ms).
NEWER = """
    SELECT s.name, n.external_id, n.id FROM documents n JOIN sources s ON s.id = n.source_id
    WHERE s.name = ANY(%s) AND n.external_id = ANY(%s) AND n.current_version IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class ToIndex:
    """What a worker needs to index a version."""

    blob_key: str
    filename: str | None
    mime_type: str | None  # as declared
    title: str | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose chunks they are."""

    tenant_id: UUID
    profile_id: int
    document_id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Scan:
    """Which index rows a leg may look at: the live profile's, the caller's label sets, the request's filter."""

    scope: AccessScope
    profile_id: int
    where: sql.Composable | None = None  # over documents d, from `store.filters`

    def matching(self) -> sql.Composable:
        """The request's filter, as a further condition on a vector's row."""
        return sql.SQL("") if self.where is None else sql.SQL(MATCHING).format(self.where)

    def values(self) -> dict[str, object]:
        """The parameters of every scan."""
        return {"tenant": self.scope.tenant_id, "label_sets": self.scope.array}


def to_index(conn: Conn, document_id: UUID, version: int) -> ToIndex | None:
    """The version to index; None when it was deleted or a newer one is current."""
    with conn.cursor(row_factory=class_row(ToIndex)) as cursor:
        return cursor.execute(TO_INDEX, (document_id, version)).fetchone()


def publish(
    conn: Conn,
    lease: Lease,
    profile_id: int,
    parsed: ParsedDocument,
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    stage_ms: Mapping[str, float],
    codes: Sequence[bytes] = (),
) -> bool:
    """Make this version the one that is read: chunks, vectors, text, labels and the pointer, in one transaction.

    `vectors` is [len(chunks), dimensions], `codes` one a chunk or, of a model without, none at all; `stage_ms` is kept
    with the job, beside this stage's own time. False when a newer version is current or the document is gone; the job
    is done either way. Raises LeaseLost, and ProfileMoved when the tenant does not live on that profile any more.
    """
    started = time.perf_counter()
    jobs.hold(conn, lease)
    _hold_live(conn, lease.job.tenant_id, profile_id)
    document_id, version = lease.job.document_id, lease.job.version
    assert document_id is not None and version is not None
    row = conn.execute(LOCK_CURRENT, (document_id,)).fetchone()
    if row is None or row[0] >= version:
        jobs.finish(conn, lease, None, {"superseded": True})
        return False
    add_rows(conn, Owner(lease.job.tenant_id, profile_id, document_id, version), parsed.text, chunks, vectors, codes)
    elements = Jsonb([asdict(element) for element in parsed.elements])
    flags = Jsonb([asdict(flag) for flag in parsed.flags])
    screened = parsed.screening and Jsonb(asdict(parsed.screening))
    own_title = parsed.title if screened else None  # else what was submitted goes first
    conn.execute(SET_TEXT, (parsed.text, elements, parsed.mime_type, own_title, parsed.title, list(parsed.warnings),
                            parsed.language, flags, screened, document_id, version))  # fmt: skip
    conn.execute(SUPERSEDE, (document_id, version))
    conn.execute(FLIP, (document_id, version))
    if parsed.screening:
        policies.drop_barred(conn, document_id, version, parsed.screening.policy)
    if parsed.fingerprint:
        copies.keep(conn, document_id, parsed.fingerprint)
    attachments.follow(conn, lease.job.tenant_id, document_id)
    seq = changes.log(conn, lease.job.tenant_id, document_id, version, "index")
    ms = {**stage_ms, "index": round((time.perf_counter() - started) * 1000, 1)}
    pages = max((element.page or 0 for element in parsed.elements), default=0)
    detail = {"chunks": len(chunks), "pages": pages, "warnings": list(parsed.warnings), "ms": ms}
    if parsed.screening and parsed.screening.found:
        detail["sensitive"] = dict(parsed.screening.found)
    jobs.finish(conn, lease, seq, detail)
    return True


def add_rows(
    conn: Conn,
    owner: Owner,
    text: str,
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    codes: Sequence[bytes],
) -> None:
    """The version's chunks, vectors and codes under a profile, instead of those of any version that are there."""
    conn.execute(DROP_CHUNKS, (owner.document_id, owner.profile_id))
    ids = _add(conn, owner, text, chunks, vectors)
    if codes:
        tokens.add(conn, owner.profile_id, owner.document_id, dict(zip(ids, codes, strict=True)))


def visible_ids(conn: Conn, scan: Scan) -> NDArray[np.int64]:
    """Ids of all chunks that the scan may see, ascending."""
    statement = sql.SQL(VISIBLE_IDS).format(vectors=changes.vectors_table(scan.profile_id), filter=scan.matching())
    return np.array([row[0] for row in conn.execute(statement, scan.values())], dtype=np.int64)


def indexed_texts(conn: Conn, chunk_ids: Sequence[int]) -> list[tuple[int, str, str, str | None]]:
    """(id, embed_prefix, text, language) of those chunks that this transaction's scope shows."""
    return [(i, p, text, language) for i, p, text, language in conn.execute(INDEXED_TEXTS, (list(chunk_ids),))]


def dates(conn: Conn, chunk_ids: Sequence[int], field: str) -> dict[int, str | None]:
    """The date of each chunk's document, of those that this transaction's scope shows. Raises Invalid."""
    if field in ("created_at", "updated_at"):
        told: sql.Composable = sql.SQL("to_json(d.{}) #>> '{{}}'").format(sql.Identifier(field))
    elif field.startswith("metadata.") and len(field) > len("metadata.") and "\0" not in field:
        told = sql.SQL("d.metadata #>> {}").format(Value(field.split(".")[1:]))
    else:
        raise Invalid(f"recency goes by created_at, updated_at or metadata.<key>, not by {field[:80]!r}")
    return dict(conn.execute(sql.SQL(DATES).format(told), (list(chunk_ids),)).fetchall())


def read_rows(conn: Conn, chunk_ids: Sequence[int]) -> dict[int, ChunkRow]:
    """Chunk rows with their documents, for those that this transaction's scope shows and whose version is current."""
    with conn.cursor(row_factory=class_row(ChunkRow)) as cursor:
        # planned once a connection: planning takes longer than reading 50 rows
        found = cursor.execute(ROWS, (list(chunk_ids),), prepare=True, binary=True).fetchall()
    known = copies.told(conn, list({row.document_id for row in found}))
    told = [replace(row, copies=known[row.document_id]) if row.document_id in known else row for row in found]
    return {row.chunk_id: row for row in _with_newer(conn, _with_parents(conn, told))}


def _with_parents(conn: Conn, rows: list[ChunkRow]) -> list[ChunkRow]:
    """The rows of attachments with the names of their messages."""
    parents = list({row.parent_id for row in rows if row.parent_id is not None})
    if not parents:
        return rows
    names: dict[UUID, str] = dict(conn.execute(PARENTS, (parents,)).fetchall())
    return [replace(row, parent_name=names.get(row.parent_id)) if row.parent_id else row for row in rows]


def _with_newer(conn: Conn, rows: list[ChunkRow]) -> list[ChunkRow]:
    """The rows with the newer documents that they name. Under row-level security one that the reader may not see is not
    there."""
    named = {row.chunk_id: (row.source, row.successor) for row in rows if row.successor not in (None, row.external_id)}
    if not named:
        return rows
    asked = ([source for source, _ in named.values()], [successor for _, successor in named.values()])
    newer = {(source, external_id): found for source, external_id, found in conn.execute(NEWER, asked).fetchall()}
    return [
        replace(row, superseded_by=newer.get(named[row.chunk_id])) if row.chunk_id in named else row for row in rows
    ]


def places(conn: Conn, tenant_id: UUID, profile_id: int) -> list[Place]:
    """Where every chunk lies that this transaction's scope shows."""
    with conn.cursor(row_factory=class_row(Place)) as cursor:
        return cursor.execute(PLACES, (tenant_id, profile_id)).fetchall()


def places_of(conn: Conn, chunk_ids: Sequence[int]) -> dict[int, Place]:
    """Where those of the chunks lie that this transaction's scope shows."""
    rows = conn.execute(PLACES_OF, (list(chunk_ids),)).fetchall()
    return {chunk_id: Place(*place) for chunk_id, *place in rows}


def of_documents(
    conn: Conn, tenant_id: UUID, profile_id: int, external_ids: Sequence[str]
) -> dict[int, tuple[UUID, Place]]:
    """By id, the chunks of these documents that this transaction's scope shows."""
    rows = conn.execute(OF_DOCUMENTS, (tenant_id, profile_id, list(external_ids))).fetchall()
    return {chunk_id: (document_id, Place(*place)) for chunk_id, document_id, *place in rows}


def _hold_live(conn: Conn, tenant_id: UUID, profile_id: int) -> None:
    """Until this transaction ends, the tenant goes on living on that profile. Raises ProfileMoved."""
    conn.execute(HOLD_LIVE, (tenant_id,))
    row = conn.execute(LIVE, (tenant_id,)).fetchone()
    if row is None or row[0] != profile_id:
        raise ProfileMoved("the tenant lives on another embedding profile now: the document is embedded again")


def _add(conn: Conn, owner: Owner, text: str, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> list[int]:
    rows = [{**asdict(chunk), "text": text[chunk.start : chunk.end]} for chunk in chunks]
    keys = {"tenant": owner.tenant_id, "profile": owner.profile_id, "document": owner.document_id,
            "version": owner.version, "chunks": Jsonb(rows)}  # fmt: skip
    ids = {ordinal: chunk_id for chunk_id, ordinal in conn.execute(ADD_CHUNKS, keys).fetchall()}
    statement = sql.SQL(ADD_VECTOR).format(changes.vectors_table(owner.profile_id))
    values = [
        (ids[chunk.ordinal], HalfVector(vector), owner.document_id, owner.version)
        for chunk, vector in zip(chunks, vectors, strict=True)
    ]
    with conn.cursor() as cursor:
        cursor.executemany(statement, values)
    return [ids[chunk.ordinal] for chunk in chunks]
