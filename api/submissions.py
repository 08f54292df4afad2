"""From a request's body to a kept submission: one way in for the three routes."""

from api.answers import SubmittedOut
from api.deps import Caller
from api.schemas import DocumentIn, UploadIn
from api.service import Service
from core.errors import Invalid
from core.records import Labels, Submission
from ingest import submit

UNTOLD = "application/octet-stream"  # what clients send when they do not know


def from_text(body: DocumentIn) -> Submission:
    """A submission of the body's own text. Raises Invalid for text that is not Unicode."""
    try:
        content = body.text.encode()
    except UnicodeEncodeError as error:
        raise Invalid("text: lone surrogates are not text") from error
    return _submission(body, content, None, body.mime_type or "text/plain")


def from_upload(body: UploadIn, content: bytes, filename: str | None, content_type: str | None) -> Submission:
    """A submission of a file's bytes."""
    declared = body.mime_type or (content_type if content_type != UNTOLD else None)
    name = (filename or "").replace("\\", "/").rsplit("/", 1)[-1].replace("\0", "")[:255]
    return _submission(body, content, name.encode(errors="replace").decode() or None, declared)


def accept(
    service: Service, caller: Caller, submission: Submission, default_labels: bool, expected: int | None
) -> SubmittedOut:
    """Keep it, and write down who did. Raises Overloaded when too much of the tenant's waits already."""
    tenant_id = caller.principal.tenant_id
    service.room.check(service.store, tenant_id)
    kept = submit.submit(
        service.store, service.blobs, tenant_id, submission, default_labels=default_labels, expected=expected,
        by=caller.told,
    )  # fmt: skip
    return SubmittedOut(
        document_id=kept.document_id, version=kept.version, job_id=kept.job_id, unchanged=kept.unchanged or None
    )


def _submission(body: UploadIn, content: bytes, filename: str | None, mime_type: str | None) -> Submission:
    return Submission(
        external_id=body.external_id,
        content=content,
        labels=body.labels.record() if body.labels else Labels(),
        source=body.source,
        title=body.title,
        mime_type=mime_type,
        filename=filename,
        uri=body.uri,
        metadata=body.metadata,
    )
