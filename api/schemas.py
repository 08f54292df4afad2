"""The bodies of the contract, v1: what comes in is checked here, what goes out is shaped here."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from core.labels import make_labels
from core.records import Document, Job, Labels, SearchAnswer, SearchRequest, Source

OPEN_DETAILS = frozenset({"candidates", "failed", "over_budget"})  # of `activity`, for callers without `operate`
MAX_METADATA = 64 * 1024  # bytes of JSON


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("text may hold neither NUL nor lone surrogates")
    return text


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ValueError("must be JSON without NaN or infinities, not too deep") from error
    _storable(text)
    if "\\u0000" in text or len(text.encode()) > MAX_METADATA:
        raise ValueError(f"may hold no NUL and up to {MAX_METADATA} bytes")
    return value


Text = Annotated[str, AfterValidator(_storable)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable_json)]


class Body(BaseModel):
    """A request body: unknown fields are errors, so that a misspelt `labels` never means `no labels`."""

    model_config = ConfigDict(extra="forbid")


class LabelsIn(Body):
    """Who may see a document."""

    allow: list[Text] = Field(default=[], max_length=1000)
    deny: list[Text] = Field(default=[], max_length=1000)
    classification: Text = "internal"

    def record(self) -> Labels:
        """Checked labels. Raises InvalidLabel."""
        return make_labels(self.allow, self.deny, self.classification)


class UploadIn(Body):
    """The fields beside an uploaded file."""

    external_id: Text = Field(min_length=1, max_length=1024)
    title: Text | None = Field(default=None, max_length=1024)
    mime_type: Text | None = Field(default=None, max_length=200)
    source: Text = Field(default="api", min_length=1, max_length=200)
    uri: Text | None = Field(default=None, max_length=2048)
    labels: LabelsIn | None = Field(default=None, description="Left out: the source's own, at first nobody.")
    metadata: JsonObject = {}


class DocumentIn(UploadIn):
    """A document with its text."""

    text: str = Field(min_length=1)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "external_id": "handbook/travel.md",
                    "title": "Travel policy",
                    "text": "Flights are booked through the portal.",
                    "mime_type": "text/markdown",
                    "labels": {"allow": ["group:staff"], "deny": [], "classification": "internal"},
                    "metadata": {"team": "ops"},
                }
            ]
        },
    )


class SearchIn(Body):
    """A question."""

    query: Text = Field(min_length=1, max_length=8000)
    queries: list[Text] = Field(default=[], max_length=8, description="Variants of the question, searched with it.")
    top_k: int = Field(default=8, ge=1, le=100)
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    filters: dict[str, Any] | None = None
    rerank: Text | None = Field(default=None, max_length=200)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    at_least: int | None = Field(default=None, ge=0, le=2**63 - 1)
    explain: bool = False

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "How are flights booked?", "top_k": 5}]}
    )

    def record(self) -> SearchRequest:
        """As the search takes it."""
        return SearchRequest(**{**self.model_dump(), "queries": tuple(self.queries)})


class SourceIn(Body):
    """A source to refresh."""

    name: Text = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")
    kind: Literal["folder"] = "folder"
    path: Text = Field(min_length=1, max_length=4096, description="A folder on the workers' machine.")
    uri_prefix: Text | None = Field(default=None, max_length=2048, description="What a citation's uri starts with.")
    labels: LabelsIn = Field(default=LabelsIn(), description="For files that no rule covers.")
    schedule: Text | None = Field(default=None, max_length=200, description="Cron, in UTC.")
    max_deleted_share: float = Field(default=0.3, ge=0, le=1)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "handbook", "path": "/srv/handbook", "schedule": "*/15 * * * *"}]},
    )


class RefreshIn(Body):
    """How to refresh."""

    allow_mass_delete: bool = False


class SubmittedOut(BaseModel):
    """What became of a submission."""

    document_id: UUID
    version: int
    job_id: UUID | None = None
    unchanged: bool | None = None


class LabelsOut(BaseModel):
    """The labels in force."""

    document_id: UUID
    labels: LabelsIn
    seq: int


class DocumentOut(BaseModel):
    """A document. Labels are told to keys that may write them."""

    document_id: UUID
    source: str
    external_id: str
    title: str | None
    uri: str | None
    version: int | None
    mime_type: str | None
    metadata: dict[str, Any]
    labels: LabelsIn | None = None
    created_at: datetime
    updated_at: datetime


class DocumentsOut(BaseModel):
    """A page of documents."""

    documents: list[DocumentOut]
    next_cursor: str | None


class TextOut(BaseModel):
    """A span of a version's text, in Unicode code points."""

    document_id: UUID
    version: int
    start: int
    end: int
    text: str


class JobOut(BaseModel):
    """A job as its row tells it."""

    job_id: UUID
    kind: str
    state: str
    document_id: UUID | None
    version: int | None
    attempts: int
    error: dict[str, str] | None
    seq: int | None
    detail: dict[str, Any]
    created_at: datetime
    updated_at: datetime


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


class RefreshOut(BaseModel):
    """A refresh that was accepted."""

    job_id: UUID


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


class PassageOut(BaseModel):
    """A cited passage."""

    rank: int
    score: float
    text: str
    citation: CitationOut
    scores: dict[str, float]


class SearchOut(BaseModel):
    """Cited context."""

    request_id: UUID
    passages: list[PassageOut]
    context: str
    degraded: list[str]
    activity: list[dict[str, Any]]


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
        mime_type=document.mime_type,
        metadata=document.metadata,
        labels=labels_out(document.labels) if with_labels else None,
        created_at=document.created_at,
        updated_at=document.updated_at,
    )


def job_out(job: Job) -> JobOut:
    """A job with its error as one object."""
    error = {"code": job.error_code, "detail": job.error or ""} if job.error_code else None
    return JobOut(
        job_id=job.id, kind=job.kind, state=job.state, document_id=job.document_id, version=job.version,
        attempts=job.attempts, error=error, seq=job.seq, detail=job.detail, created_at=job.created_at,
        updated_at=job.updated_at,
    )  # fmt: skip


def source_out(source: Source) -> SourceOut:
    """A source with its default labels."""
    return SourceOut(
        source_id=source.id, name=source.name, kind=source.kind, config=source.config,
        labels=labels_out(source.labels), schedule=source.schedule, max_deleted_share=source.max_deleted_share,
        last_success_at=source.last_success_at,
    )  # fmt: skip


def search_out(answer: SearchAnswer, operator: bool) -> dict[str, Any]:
    """The answer's JSON. Figures that hidden documents could move are for operators."""
    passages = [
        {
            "rank": passage.rank,
            "score": passage.score,
            "text": passage.text,
            "citation": _fields(passage.citation),
            "scores": {k: v for k, v in _fields(passage.scores).items() if k != "chunk_id" and v is not None},
        }
        for passage in answer.passages
    ]
    activity = [
        {"stage": s.stage, "ms": s.ms, **{k: v for k, v in s.detail.items() if operator or k in OPEN_DETAILS}}
        for s in answer.activity
    ]
    return {"request_id": answer.request_id, "passages": passages, "context": answer.context,
            "degraded": answer.degraded, "activity": activity}  # fmt: skip


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
