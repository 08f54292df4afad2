"""Documents: submit, upload, label, delete, read. Writes are made by a key with `ingest`, in its own name."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from pydantic import ValidationError

from api.answers import DocumentOut, DocumentsOut, LabelsOut, SubmittedOut, TextOut, document_out
from api.cursor import START, read_cursor, write_cursor
from api.deps import Caller, ExpectedVersion, Reader, ServiceDep, Writer
from api.schemas import DocumentIn, LabelsIn, UploadIn
from api.submissions import accept, from_text, from_upload
from core.errors import Invalid
from ingest import submit
from ingest.erase import erase
from retrieval.trail import audited_read
from store import documents

router = APIRouter(prefix="/v1/documents", tags=["documents"])
ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Unchanged: the same bytes, metadata and labels are kept already"},
    202: {"description": "Kept; its job indexes it"},
}


@router.post("", status_code=202, response_model=SubmittedOut, response_model_exclude_none=True, responses=ACCEPTED,
             summary="Submit a document")  # fmt: skip
def post_document(
    body: DocumentIn, caller: Writer, service: ServiceDep, response: Response, expected: ExpectedVersion
) -> SubmittedOut:
    """202 means kept: the bytes and the job are committed."""
    submitted = accept(service, caller, from_text(body), body.labels is None, expected)
    response.status_code = 200 if submitted.unchanged else 202
    return submitted


@router.post("/upload", status_code=202, response_model=SubmittedOut, response_model_exclude_none=True,
             responses=ACCEPTED, summary="Upload a file")  # fmt: skip
def post_upload(
    file: Annotated[UploadFile, File(description="The document; its bytes tell its type, not its name.")],
    document: Annotated[str, Form(description="JSON: the fields of a document but `text`.",
                                  examples=['{"external_id": "travel.pdf", "labels": {"allow": ["public"]}}'])],
    caller: Writer,
    service: ServiceDep,
    response: Response,
    expected: ExpectedVersion,
) -> SubmittedOut:  # fmt: skip
    """A file with the fields of a document beside it."""
    try:
        fields = UploadIn.model_validate_json(document)
    except ValidationError as error:
        raise Invalid(f"`document`: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from error
    submission = from_upload(fields, file.file.read(), file.filename, file.content_type)
    submitted = accept(service, caller, submission, fields.labels is None, expected)
    response.status_code = 200 if submitted.unchanged else 202
    return submitted


@router.get("", response_model=DocumentsOut, summary="List visible documents")
def get_documents(
    caller: Reader,
    service: ServiceDep,
    source: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DocumentsOut:
    """A page of what the caller may see, oldest first."""
    with audited_read(service.store, caller.principal, "list", None, caller.request_id) as (conn, told):
        found = documents.page(conn, source, read_cursor(cursor, START), limit + 1)
        shown = found[:limit]
        told["documents"] = [f"{document.id}@{document.version}" for document in shown]
    return DocumentsOut(
        documents=[document_out(document, _may_know_labels(caller)) for document in shown],
        next_cursor=write_cursor(shown[-1].created_at, shown[-1].id) if len(found) > limit else None,
    )


@router.get("/{document_id}", response_model=DocumentOut, summary="One document")
def get_document(document_id: UUID, caller: Reader, service: ServiceDep, response: Response) -> DocumentOut:
    """Its metadata; 404 alike when it is absent and when the caller may not see it."""
    resource = f"document:{document_id}"
    with audited_read(service.store, caller.principal, "read", resource, caller.request_id) as (conn, told):
        document = documents.get(conn, document_id)
        told |= {"documents": [f"{document.id}@{document.version}"], "part": "metadata"}
    response.headers["ETag"] = f'"{document.latest_version}"'
    return document_out(document, _may_know_labels(caller))


@router.get("/{document_id}/text", response_model=TextOut, summary="A span of a version's text")
def get_text(
    document_id: UUID,
    caller: Reader,
    service: ServiceDep,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    start: Annotated[int, Query(ge=0, le=2**30)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**30)] = None,
) -> TextOut:
    """What a citation points at: text[start:end], counted in Unicode code points."""
    resource = f"document:{document_id}"
    with audited_read(service.store, caller.principal, "read", resource, caller.request_id) as (conn, told):
        told["part"] = "text"
        span = documents.read_text(conn, document_id, version, start, end)
        told |= {"documents": [f"{document_id}@{span.version}"], "start": span.start, "end": span.end}
    return TextOut(document_id=document_id, version=span.version, start=span.start, end=span.end, text=span.text)


@router.put("/{document_id}/labels", response_model=LabelsOut, summary="Change who may see a document")
def put_labels(
    document_id: UUID, body: LabelsIn, caller: Writer, service: ServiceDep, expected: ExpectedVersion
) -> LabelsOut:
    """Holds for every reader from this answer on. Nothing is embedded."""
    tenant_id = caller.principal.tenant_id
    seq = submit.change_labels(service.store, tenant_id, document_id, body.record(), expected, by=caller.told)
    return LabelsOut(document_id=document_id, labels=body, seq=seq)


@router.delete("/{document_id}", status_code=204, summary="Delete a document")
def delete_document(document_id: UUID, caller: Writer, service: ServiceDep, expected: ExpectedVersion) -> None:
    """Gone from every search from this answer on, with its versions and bytes."""
    tenant_id = caller.principal.tenant_id
    erased = erase(service.store, service.blobs, tenant_id, document_id, by=caller.actor,
                   acting_for=caller.acting_for, expected=expected, request_id=caller.request_id)  # fmt: skip
    service.searcher.lexical.forget(erased.chunk_ids)
    if service.searcher.answers is not None:
        service.searcher.answers.clear(tenant_id)


def _may_know_labels(caller: Caller) -> bool:
    return bool({"ingest", "operate"} & caller.scopes) and not caller.delegated
