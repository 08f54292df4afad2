"""Documents and their immutable versions: submit, label, delete, read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from core.errors import Invalid, NotFound, Removed, VersionConflict
from core.records import Document, Labels, Submission, Submitted
from store import access, attachments, changes, jobs
from store.pool import Conn

LOCK_OR_ADD = """
    INSERT INTO documents (tenant_id, source_id, external_id, label_set_id, title, uri, metadata)
    VALUES (%(tenant)s, %(source)s, %(external_id)s, %(labels)s, %(title)s, %(uri)s, %(metadata)s)
    ON CONFLICT (source_id, external_id) DO UPDATE SET updated_at = documents.updated_at
    RETURNING id, label_set_id, current_version, latest_version, parent_id
"""
LOCK = """
    SELECT id, label_set_id, current_version, latest_version, parent_id
    FROM documents WHERE tenant_id = %s AND id = %s FOR UPDATE
"""
LATEST = "SELECT label_set_id, state, content_hash, blob_key FROM versions WHERE document_id = %s AND version = %s"
ADD_VERSION = """
    INSERT INTO versions (document_id, version, tenant_id, label_set_id, content_hash, blob_key, size, mime_type,
                          filename, title)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
SUBMITTED = "UPDATE documents SET latest_version = %s, label_set_id = %s, updated_at = now() WHERE id = %s"
# Compared by Postgres: to Python, true is 1.
SET_METADATA = """
    UPDATE documents SET metadata = %(metadata)s, uri = %(uri)s, updated_at = now()
    WHERE id = %(id)s AND (metadata, uri) IS DISTINCT FROM (%(metadata)s, %(uri)s)
"""
SET_LABELS = "UPDATE documents SET label_set_id = %s, updated_at = now() WHERE id = %s"
# Not of versions that were replaced: opening what is read now does not open what it once said.
SET_WANTED_LABELS = "UPDATE versions SET label_set_id = %s WHERE document_id = %s AND version >= %s"
# Of failed ones too: such a job can be tried again.
LABELS_BEFORE = "SELECT DISTINCT label_set_id FROM versions WHERE document_id = %s AND version < %s"
NARROW_BEFORE = "UPDATE versions SET label_set_id = %s WHERE document_id = %s AND version < %s AND label_set_id = %s"
SET_BYTES = "UPDATE versions SET blob_key = %s, size = %s WHERE document_id = %s AND version = %s"
STILL_USED = "SELECT blob_key FROM versions WHERE blob_key = ANY(%s)"
USE_BLOB = "SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))"
FREEZE_BLOB = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

READ = """
    SELECT d.id, s.name, d.external_id, d.title, d.uri, d.current_version, d.latest_version, v.mime_type,
           v.language, l.allow, l.deny, l.classification, d.metadata, d.created_at, d.updated_at,
           d.parent_id
    FROM documents d
    JOIN sources s ON s.id = d.source_id
    JOIN label_sets l ON l.id = d.label_set_id
    LEFT JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
"""
READ_ONE = READ + " WHERE d.id = %s"
READ_PAGE = (
    READ
    + """
    WHERE (d.created_at, d.id) > (%(at)s, %(id)s) AND (%(source)s::text IS NULL OR s.name = %(source)s)
    ORDER BY d.created_at, d.id LIMIT %(limit)s
"""
)
TEXT = """
    SELECT v.version, substr(v.text, %(start)s::int + 1, %(length)s::int)
    FROM versions v JOIN documents d ON d.id = v.document_id
    WHERE v.document_id = %(id)s AND v.version = coalesce(%(version)s, d.current_version) AND v.text IS NOT NULL
"""
WAS_REMOVED = "SELECT FROM documents WHERE id = %(id)s AND oldest_version > %(version)s"

SPANS = """
    SELECT w.place, substr(v.text, w.start + 1, w."end" - w.start)
    FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::int[]) WITH ORDINALITY AS w (id, version, start, "end", place)
    JOIN versions v ON v.document_id = w.id AND v.version = w.version AND v.text IS NOT NULL
"""

MAX_OFFSET = 2**30  # beyond any text that Postgres holds


@dataclass(frozen=True, slots=True)
class _Locked:
    """A document's row, locked for this transaction."""

    id: UUID
    label_set_id: int
    current_version: int | None
    latest_version: int
    parent_id: UUID | None


@dataclass(frozen=True, slots=True)
class Span:
    """Where a text stands: text[start:end] of that version, in code points."""

    document_id: UUID
    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A span of a version's canonical text, in code points."""

    version: int
    start: int
    end: int
    text: str


def submit(
    conn: Conn, tenant_id: UUID, source_id: UUID, submission: Submission, blob_key: str, expected: int | None = None
) -> Submitted:
    """Commit-ready: the document, its new version and its job; or that nothing changed.

    Labels that narrow hold at once, also for the version that is being read now; labels that widen hold when the new
    version is indexed. Changed labels or metadata alone make no new version. Raises InvalidLabel, and VersionConflict
    when `expected` is not the latest version.
    """
    wanted = access.intern_labels(conn, tenant_id, submission.labels)
    values = {"tenant": tenant_id, "source": source_id, "external_id": submission.external_id, "labels": wanted,
              "title": submission.title, "uri": submission.uri, "metadata": Jsonb(submission.metadata)}  # fmt: skip
    row = conn.execute(LOCK_OR_ADD, values).fetchone()
    assert row is not None
    document = _own(_Locked(*row))
    _check_expected(document, expected)
    digest = content_hash(submission, blob_key)
    latest = conn.execute(LATEST, (document.id, document.latest_version)).fetchone()
    if latest is None or latest[2] != digest or latest[1] == "failed":
        return _add_version(conn, tenant_id, document, submission, blob_key, digest, wanted)
    if latest[3] != blob_key:  # the same text, in bytes that say who may see it: later readers of them must find these
        conn.execute(SET_BYTES, (blob_key, len(submission.content), document.id, document.latest_version))
    same_metadata = not _set_metadata(conn, document, submission)
    if latest[0] == wanted and same_metadata:
        return Submitted(document.id, document.latest_version, None, unchanged=True)
    if latest[1] == "pending":
        return _relabel_pending(conn, tenant_id, document, wanted)
    seq = _relabel(conn, tenant_id, document, wanted)
    job_id = jobs.add_finished(conn, tenant_id, document.id, document.latest_version, seq)
    return Submitted(document.id, document.latest_version, job_id)


def change_labels(conn: Conn, tenant_id: UUID, document_id: UUID, labels: Labels, expected: int | None = None) -> int:
    """Put the document under these labels for every reader from this commit on; returns the change's seq.

    No text is read and nothing is embedded. Raises NotFound, InvalidLabel, VersionConflict.
    """
    document = _lock(conn, tenant_id, document_id)
    _check_expected(document, expected)
    return _relabel(conn, tenant_id, document, access.intern_labels(conn, tenant_id, labels))


def relabel(conn: Conn, tenant_id: UUID, document_id: UUID, labels: Labels) -> bool:
    """Labels that the source gives anew, of content that stays; whether they are others than before.

    While a version is under way, or failed, they hold as those of a submission do: no wider than before until it is
    indexed, for the source gives them to a text that nobody reads yet. Raises NotFound, InvalidLabel.
    """
    document = _lock(conn, tenant_id, document_id)
    wanted = access.intern_labels(conn, tenant_id, labels)
    latest = conn.execute(LATEST, (document.id, document.latest_version)).fetchone()
    if latest is not None and latest[0] == wanted == document.label_set_id:
        return False
    if latest is not None and latest[1] in ("pending", "failed"):
        _relabel_pending(conn, tenant_id, document, wanted)
    else:
        _relabel(conn, tenant_id, document, wanted)
    return True


def narrow_labels(conn: Conn, tenant_id: UUID, document_id: UUID, labels: Labels) -> None:
    """Close the document to all but whom both its own labels and these admit. A document that is gone is fine."""
    row = conn.execute(LOCK, (tenant_id, document_id)).fetchone()
    if row is not None:
        document = _own(_Locked(*row))
        old = access.labels_of(conn, document.label_set_id)
        if labels.classification not in access.scale_of(conn, tenant_id):  # nobody knows who may: nobody
            labels = Labels((), labels.deny, old.classification)
        in_force = access.intern_labels(conn, tenant_id, access.narrowed(conn, tenant_id, old, labels))
        if in_force != document.label_set_id:
            _relabel(conn, tenant_id, document, in_force)


def use_blob(conn: Conn, key: str) -> None:
    """Until this transaction ends, nobody deletes the blob: make sure of its bytes now, then refer to it."""
    conn.execute(USE_BLOB, (key,))


def freeze_blob(conn: Conn, key: str) -> bool:
    """Whether nothing refers to the blob, and nothing will before this transaction ends."""
    conn.execute(FREEZE_BLOB, (key,))
    return conn.execute(STILL_USED, ([key],)).fetchone() is None


def unused_blobs(conn: Conn, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no version names, as of now."""
    used = {key for (key,) in conn.execute(STILL_USED, (list(keys),)).fetchall()}
    return [key for key in keys if key not in used]


def content_hash(submission: Submission, blob_key: str) -> bytes:
    """What an embedding rests on: the bytes that are read, how they are read, and the title in front of each chunk."""
    parts = (submission.read_hash or blob_key, submission.mime_type or "", submission.title or "")
    return hashlib.sha256("\0".join(parts).encode()).digest()


def get(conn: Conn, document_id: UUID) -> Document:
    """A document that this transaction's scope shows. Raises NotFound."""
    row = conn.execute(READ_ONE, (document_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such document")
    return _document(row)


def page(conn: Conn, source: str | None, after: tuple[datetime, UUID], limit: int) -> list[Document]:
    """Up to `limit` visible documents that come after (created_at, id), in that order."""
    values = {"source": source, "at": after[0], "id": after[1], "limit": limit}
    return [_document(row) for row in conn.execute(READ_PAGE, values).fetchall()]


def read_text(conn: Conn, document_id: UUID, version: int | None, start: int, end: int | None) -> TextSpan:
    """text[start:end] of a version (default: the current one). Raises NotFound, and Removed for one that retention took
    from a document which this transaction's scope shows."""
    length = max(0, (MAX_OFFSET if end is None else end) - start)
    values = {"id": document_id, "version": version, "start": start, "length": length}
    row = conn.execute(TEXT, values).fetchone()
    if row is None:
        if conn.execute(WAS_REMOVED, values).fetchone() is not None:
            raise Removed("the document does not keep this version any more: read the current one")
        raise NotFound("there is no such document")
    return TextSpan(row[0], start, start + len(row[1]), row[1])


def read_spans(conn: Conn, spans: Sequence[Span]) -> dict[Span, str]:
    """The text of each span whose version this transaction's scope shows."""
    columns = ([span.document_id for span in spans], [span.version for span in spans],
               [span.start for span in spans], [span.end for span in spans])  # fmt: skip
    return {spans[place - 1]: text for place, text in conn.execute(SPANS, columns).fetchall()}


def _lock(conn: Conn, tenant_id: UUID, document_id: UUID) -> _Locked:
    row = conn.execute(LOCK, (tenant_id, document_id)).fetchone()
    if row is None:
        raise NotFound("there is no such document")
    return _own(_Locked(*row))


def _own(document: _Locked) -> _Locked:
    if document.parent_id is not None:
        raise Invalid("that is an attachment: its bytes and labels are those of its message; change that")
    return document


def _check_expected(document: _Locked, expected: int | None) -> None:
    if expected is not None and expected != document.latest_version:
        raise VersionConflict(f"the document is at version {document.latest_version}, not {expected}: read it again")


def _add_version(
    conn: Conn, tenant_id: UUID, document: _Locked, submission: Submission, blob_key: str, digest: bytes, wanted: int
) -> Submitted:
    version = document.latest_version + 1
    conn.execute(ADD_VERSION, (document.id, version, tenant_id, wanted, digest, blob_key, len(submission.content),
                               submission.mime_type, submission.filename, submission.title))  # fmt: skip
    in_force = wanted if document.latest_version == 0 else _narrow(conn, tenant_id, document, wanted)
    conn.execute(SUBMITTED, (version, in_force, document.id))
    _set_metadata(conn, document, submission)
    return Submitted(document.id, version, jobs.add_index(conn, tenant_id, document.id, version))


def _narrow(conn: Conn, tenant_id: UUID, document: _Locked, wanted: int) -> int:
    """The labels in force until the new version is indexed: nobody sees more than before, nor than `wanted` shows."""
    in_force = _meet(conn, tenant_id, document.label_set_id, wanted)
    if in_force != document.label_set_id:
        _move(conn, tenant_id, document, in_force)
    _narrow_before(conn, tenant_id, document, document.latest_version + 1, wanted)
    return in_force


def _narrow_before(conn: Conn, tenant_id: UUID, document: _Locked, version: int, wanted: int) -> None:
    """Versions before this one show no more than `wanted` does, for good: a wider one later does not reopen them."""
    for (label_set_id,) in conn.execute(LABELS_BEFORE, (document.id, version)).fetchall():
        meet = _meet(conn, tenant_id, label_set_id, wanted)
        conn.execute(NARROW_BEFORE, (meet, document.id, version, label_set_id))


def _meet(conn: Conn, tenant_id: UUID, old: int, new: int) -> int:
    if old == new:
        return old
    labels = access.narrowed(conn, tenant_id, access.labels_of(conn, old), access.labels_of(conn, new))
    return access.intern_labels(conn, tenant_id, labels)


def _relabel_pending(conn: Conn, tenant_id: UUID, document: _Locked, wanted: int) -> Submitted:
    """Other labels for a version that is not indexed yet: they must not open the text that is read until then."""
    _narrow(conn, tenant_id, document, wanted)
    conn.execute(SET_WANTED_LABELS, (wanted, document.id, document.latest_version))
    return Submitted(document.id, document.latest_version, jobs.indexing(conn, document.id, document.latest_version))


def _set_metadata(conn: Conn, document: _Locked, submission: Submission) -> bool:
    values = {"metadata": Jsonb(submission.metadata), "uri": submission.uri, "id": document.id}
    return conn.execute(SET_METADATA, values).rowcount == 1


def _relabel(conn: Conn, tenant_id: UUID, document: _Locked, wanted: int) -> int:
    # with the current version, those under way: they must not bring the old labels back
    current = document.current_version or 0
    conn.execute(SET_WANTED_LABELS, (wanted, document.id, current))
    _narrow_before(conn, tenant_id, document, current, wanted)
    return _move(conn, tenant_id, document, wanted)


def _move(conn: Conn, tenant_id: UUID, document: _Locked, label_set_id: int) -> int:
    conn.execute(SET_LABELS, (label_set_id, document.id))
    changes.move_vectors(conn, tenant_id, document.id, label_set_id)
    attachments.follow(conn, tenant_id, document.id)
    return changes.log(conn, tenant_id, document.id, document.current_version, "relabel")


def _document(row: tuple[Any, ...]) -> Document:
    document_id, source, external_id, title, uri, version, latest, mime_type, language, *labelled = row
    allow, deny, classification, *rest = labelled
    labels = Labels(tuple(allow), tuple(deny), classification)
    return Document(document_id, source, external_id, title, uri, version, latest, mime_type, language, labels, *rest)
