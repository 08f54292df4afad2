"""What goes out: the bodies of the contract's answers, each with an example, and records shaped as them."""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from api.schemas import LabelsIn
from core.explained import Fate
from core.records import Document, FusionMethod, Job, Labels, SearchAnswer, Source
from store.explain import Explanation

OPEN_DETAILS = frozenset({"candidates", "failed", "over_budget", "duplicates"})  # of `activity`, without `operate`

DOCUMENT = "6f1c1f0e-8f3b-4f0a-9d5e-0c4a3f6f7b1d"
JOB = "0b0d5e0c-52a4-4d0e-8a07-6f4c1b2b9c11"
WHEN = "2026-01-05T09:00:00Z"
LABELS = {"allow": ["group:staff"], "deny": [], "classification": "internal"}

DOCUMENT_EXAMPLE: dict[str, Any] = {
    "document_id": DOCUMENT, "source": "api", "external_id": "handbook/travel.md", "title": "Travel policy",
    "uri": None, "version": 1, "latest_version": 1, "mime_type": "text/markdown", "language": "en",
    "metadata": {"team": "ops"},
    "labels": LABELS, "created_at": WHEN, "updated_at": WHEN, "attached_to": None,
}  # fmt: skip
JOB_EXAMPLE: dict[str, Any] = {
    "job_id": JOB, "kind": "index", "state": "done", "document_id": DOCUMENT, "version": 1, "attempts": 1, "faults": 0,
    "error": None, "seq": 42, "detail": {"chunks": 3}, "next_try_at": None, "created_at": WHEN, "updated_at": WHEN,
}  # fmt: skip
SOURCE_EXAMPLE: dict[str, Any] = {
    "source_id": DOCUMENT, "name": "handbook", "kind": "folder", "config": {"path": "/srv/handbook"}, "labels": LABELS,
    "schedule": "*/15 * * * *", "max_deleted_share": 0.3, "last_success_at": WHEN, "timezone": "UTC", "jitter_s": 0,
    "next_due_at": WHEN, "content_as_of": WHEN, "permissions_as_of": WHEN, "lag_s": 0.0,
}  # fmt: skip
SEARCH_EXAMPLE: dict[str, Any] = {
    "request_id": JOB,
    "passages": [
        {"rank": 1, "score": 0.93, "text": "Flights are booked.",
         "citation": {"marker": "[1]", "document_id": DOCUMENT, "external_id": "handbook/travel.md", "version": 1,
                      "title": "Travel policy", "uri": None, "page": None, "heading_path": ["Travel", "Booking"],
                      "start": 0, "end": 19, "content_hash": "9f2c…", "superseded_by": None,
                      "copies": 0, "attached_to": None, "attached_to_title": None},
         "scores": {"fused": 0.93, "dense": 0.61, "lexical": 7.2}, "flags": []},
    ],
    "context": "[1] Travel policy, Travel > Booking\nFlights are booked.",
    "degraded": [],
    "activity": [{"stage": "dense", "ms": 4.1, "candidates": 200}],
}  # fmt: skip


def _example(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class SubmittedOut(BaseModel):
    """What became of a submission."""

    document_id: UUID
    version: int
    job_id: UUID | None = None
    unchanged: bool | None = None

    model_config = _example({"document_id": DOCUMENT, "version": 1, "job_id": JOB})


class LabelsOut(BaseModel):
    """The labels in force."""

    document_id: UUID
    labels: LabelsIn
    seq: int

    model_config = _example({"document_id": DOCUMENT, "labels": LABELS, "seq": 42})


class DocumentOut(BaseModel):
    """A document. Labels are told to keys that may write them."""

    document_id: UUID
    source: str
    external_id: str
    title: str | None
    uri: str | None
    version: int | None
    latest_version: int
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    labels: LabelsIn | None = None
    created_at: datetime
    updated_at: datetime
    attached_to: UUID | None

    model_config = _example(DOCUMENT_EXAMPLE)


class DocumentsOut(BaseModel):
    """A page of documents."""

    documents: list[DocumentOut]
    next_cursor: str | None

    model_config = _example({"documents": [DOCUMENT_EXAMPLE], "next_cursor": None})


class TextOut(BaseModel):
    """A span of a version's text, in Unicode code points."""

    document_id: UUID
    version: int
    start: int
    end: int
    text: str

    model_config = _example(
        {"document_id": DOCUMENT, "version": 1, "start": 0, "end": 19, "text": "Flights are booked."}
    )


class JobOut(BaseModel):
    """A job as its row tells it."""

    job_id: UUID
    kind: str
    state: str
    document_id: UUID | None
    version: int | None
    attempts: int
    faults: int
    error: dict[str, str] | None
    seq: int | None
    detail: dict[str, Any]
    next_try_at: datetime | None
    created_at: datetime
    updated_at: datetime

    model_config = _example(JOB_EXAMPLE)


class JobsOut(BaseModel):
    """A page of jobs."""

    jobs: list[JobOut]
    next_cursor: str | None

    model_config = _example({"jobs": [JOB_EXAMPLE], "next_cursor": None})


class SourceOut(BaseModel):
    """A source."""

    source_id: UUID
    name: str
    kind: str
    config: dict[str, Any]
    labels: LabelsIn
    schedule: str | None
    max_deleted_share: float
    last_success_at: datetime | None
    timezone: str
    jitter_s: int
    next_due_at: datetime | None
    content_as_of: datetime | None
    permissions_as_of: datetime | None
    lag_s: float

    model_config = _example(SOURCE_EXAMPLE)


class SourcesOut(BaseModel):
    """A page of sources."""

    sources: list[SourceOut]
    next_cursor: str | None

    model_config = _example({"sources": [SOURCE_EXAMPLE], "next_cursor": None})


class HeldOut(BaseModel):
    """A label that is held, and a shortest way to it."""

    label: str
    path: list[str]
    claimed: bool


class ClearanceOut(BaseModel):
    """How far up the scale somebody sees."""

    classification: str
    own: bool
    reaches: bool


class ExplanationOut(BaseModel):
    """What decided."""

    document_id: UUID
    subject: str
    decision: str
    epoch: int
    external_id: str | None
    indexed: bool
    label_set_id: int | None
    labels: LabelsIn | None
    allowed_by: list[HeldOut]
    denied_by: list[HeldOut]
    clearance: ClearanceOut | None

    model_config = _example(
        {"document_id": DOCUMENT, "subject": "user:ana@acme.example", "decision": "visible", "epoch": 1767225600000000,
         "external_id": "handbook/travel.md", "indexed": True, "label_set_id": 12, "labels": LABELS,
         "allowed_by": [{"label": "group:staff", "path": ["user:ana@acme.example", "group:ops", "group:staff"],
                         "claimed": False}],
         "denied_by": [], "clearance": {"classification": "internal", "own": False, "reaches": True}}
    )  # fmt: skip


class RefreshOut(BaseModel):
    """A refresh that was accepted."""

    job_id: UUID

    model_config = _example({"job_id": JOB})


class FusionOut(BaseModel):
    """How the dense and lexical legs become one list."""

    method: FusionMethod
    dense_weight: float
    rrf_k: int

    model_config = _example({"method": "convex", "dense_weight": 0.4, "rrf_k": 60})


class FeedbackOut(BaseModel):
    """That it is kept."""

    request_id: UUID  # of the answer that it is about

    model_config = _example({"request_id": JOB})


class CitationOut(BaseModel):
    """Where a passage stands: /text?version&start&end of the document is the passage."""

    marker: str
    document_id: UUID
    external_id: str
    version: int
    title: str | None
    uri: str | None
    page: int | None
    heading_path: list[str]
    start: int
    end: int
    content_hash: str
    superseded_by: UUID | None
    copies: int  # other documents that say the same and that the caller may see, counted up to 100
    attached_to: UUID | None
    attached_to_title: str | None


class PassageOut(BaseModel):
    """A cited passage."""

    rank: int
    score: float
    text: str
    citation: CitationOut
    scores: dict[str, float]
    flags: list[str]  # what its reader should know: hidden_text, invisible_characters, kinds of sensitive data


class PlacedOut(BaseModel):
    """A place among a stage's candidates, from 1, and the score there."""

    rank: int
    score: float


class ExplainedOut(BaseModel):
    """A candidate near the cut: where each stage put it, and what became of it."""

    document_id: UUID
    external_id: str
    version: int
    start: int
    end: int
    dense: PlacedOut | None
    lexical: PlacedOut | None
    fused: PlacedOut
    rerank: PlacedOut | None
    fate: Fate
    passage: int | None


class SearchOut(BaseModel):
    """Cited context; with `explain`, the candidates near the cut as well."""

    request_id: UUID
    passages: list[PassageOut]
    context: str
    degraded: list[str]
    activity: list[dict[str, Any]]
    explanation: list[ExplainedOut] | None = None

    model_config = _example(SEARCH_EXAMPLE)


def labels_out(labels: Labels) -> LabelsIn:
    """A record's labels as a body."""
    return LabelsIn(allow=list(labels.allow), deny=list(labels.deny), classification=labels.classification)


def document_out(document: Document, with_labels: bool) -> DocumentOut:
    """A document as its reader may know it."""
    return DocumentOut(
        document_id=document.id,
        source=document.source,
        external_id=document.external_id,
        title=document.title,
        uri=document.uri,
        version=document.version,
        latest_version=document.latest_version,
        mime_type=document.mime_type,
        language=document.language,
        metadata=document.metadata,
        labels=labels_out(document.labels) if with_labels else None,
        created_at=document.created_at,
        updated_at=document.updated_at,
        attached_to=document.attached_to,
    )


def job_out(job: Job, limited: bool) -> JobOut:
    """A job with its error as one object. A source's figures are of all its documents, so not for limited callers."""
    if limited and job.document_id is None:
        job = replace(job, error="", detail={})
    error = {"code": job.error_code, "detail": job.error or ""} if job.error_code else None
    return JobOut(
        job_id=job.id, kind=job.kind, state=job.state, document_id=job.document_id, version=job.version,
        attempts=job.attempts, faults=job.faults, error=error, seq=job.seq, detail=job.detail,
        next_try_at=job.next_try_at, created_at=job.created_at, updated_at=job.updated_at,
    )  # fmt: skip


def explanation_out(found: Explanation) -> ExplanationOut:
    """An explanation as a body."""
    return ExplanationOut.model_validate(asdict(found))


def source_out(source: Source) -> SourceOut:
    """A source with its default labels."""
    return SourceOut(
        source_id=source.id, name=source.name, kind=source.kind, config=source.config,
        labels=labels_out(source.labels), schedule=source.schedule, max_deleted_share=source.max_deleted_share,
        last_success_at=source.last_success_at, timezone=source.timezone, jitter_s=source.jitter_s,
        next_due_at=source.next_due_at, content_as_of=source.content_as_of, permissions_as_of=source.permissions_as_of,
        lag_s=source.lag_s,
    )  # fmt: skip


def search_out(answer: SearchAnswer, operator: bool) -> dict[str, Any]:
    """The answer's JSON. Figures that hidden documents could move are for operators."""
    passages = [
        {
            "rank": passage.rank,
            "score": passage.score,
            "text": passage.text,
            "citation": _fields(passage.citation),
            "scores": {k: v for k, v in passage.scores._asdict().items() if k != "chunk_id" and v is not None},
            "flags": list(passage.flags),
        }
        for passage in answer.passages
    ]
    activity = [
        {"stage": s.stage, "ms": s.ms, **{k: v for k, v in s.detail.items() if operator or k in OPEN_DETAILS}}
        for s in answer.activity
    ]
    body = {"request_id": answer.request_id, "passages": passages, "context": answer.context,
            "degraded": answer.degraded, "activity": activity}  # fmt: skip
    if answer.explanation is not None:
        body["explanation"] = [asdict(each) for each in answer.explanation]
    return body


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
