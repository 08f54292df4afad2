"""Accept a document: its bytes and its job row are kept before anyone hears `202`."""

from dataclasses import asdict, replace
from uuid import UUID

from core.errors import EmptyDocument, Invalid
from core.records import Labels, Submission, Submitted
from store import audit, documents, sources
from store.audit import Actor, audited
from store.blobs import BlobStore
from store.pool import Conn, Store

MAX_EXTERNAL_ID = 1024  # characters
MAX_EXTERNAL_ID_BYTES = 2048  # a btree takes rows of 2704


def submit(
    store: Store,
    blobs: BlobStore,
    tenant_id: UUID,
    submission: Submission,
    *,
    default_labels: bool,
    expected: int | None,
    by: Actor | None = None,
) -> Submitted:
    """Keep the bytes, then commit document, version, job and the audit's row of it together.

    With `default_labels` the source's own labels stand in for the submission's. `expected` is the version that the
    caller last saw, `by` whom the audit names. Raises Invalid, EmptyDocument, Conflict, BlobUnavailable,
    StoreUnavailable.
    """
    _check(submission)
    key = blobs.put(submission.content)
    with audited(store) as conn:
        hold_bytes(conn, blobs, key, submission.content)
        source = sources.ensure_api_source(conn, tenant_id, submission.source)
        labelled = replace(submission, labels=source.labels) if default_labels else submission
        kept = documents.submit(conn, tenant_id, source.id, labelled, key, expected)
        if by is not None:
            outcome = "unchanged" if kept.unchanged else "accepted"
            resource = f"document:{kept.document_id}@{kept.version}"
            audit.add(conn, tenant_id, "submit", **asdict(by), outcome=outcome, resource=resource)
    return kept


def change_labels(
    store: Store, tenant_id: UUID, document_id: UUID, labels: Labels, expected: int | None, *, by: Actor | None = None
) -> int:
    """Move a document to other labels, for every reader from the commit on; returns the change's seq."""
    with audited(store) as conn:
        seq = documents.change_labels(conn, tenant_id, document_id, labels, expected)
        if by is not None:
            resource = f"document:{document_id}"
            audit.add(conn, tenant_id, "label.change", **asdict(by), resource=resource, detail=asdict(labels))
    return seq


def hold_bytes(conn: Conn, blobs: BlobStore, key: str, content: bytes) -> None:
    """For a transaction that will refer to bytes that were put: who found them unused may have deleted them since."""
    documents.use_blob(conn, key)
    blobs.put(content)


def check_external_id(external_id: str) -> None:
    """Raises Invalid for a name that is empty, too long for the index, or not text."""
    try:
        size = len(external_id.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"the name {external_id[:200]!a} is not UTF-8: rename it") from error
    if not 0 < len(external_id) <= MAX_EXTERNAL_ID or size > MAX_EXTERNAL_ID_BYTES or "\0" in external_id:
        raise Invalid(
            f"external_id must have 1 to {MAX_EXTERNAL_ID} characters, at most {MAX_EXTERNAL_ID_BYTES} bytes and no NUL"
        )


def _check(submission: Submission) -> None:
    if not submission.content:
        raise EmptyDocument(f"{submission.external_id[:80]!r} holds no bytes")
    check_external_id(submission.external_id)
