"""What the API speaks of: one frozen record a concept, read from JSON in one place.

Offsets count Unicode code points of a version's stored text; spans are half-open. Each `*_of` raises KeyError,
TypeError, ValueError or AttributeError for JSON that is not the contract's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from citadel_client.explained import Explained, explained_of

Json = Mapping[str, Any]
Mode = Literal["hybrid", "dense", "lexical"]

FINISHED = ("done", "failed", "quarantined", "cancelled")


@dataclass(frozen=True, slots=True)
class Labels:
    """Who may see a document. Holding one of `allow` opens it, holding one of `deny` closes it whatever is allowed."""

    allow: tuple[str, ...] = ()  # e.g. group:finance, user:ana@acme.example, public; none: nobody but an operator
    deny: tuple[str, ...] = ()
    classification: str = "internal"

    def __post_init__(self) -> None:
        if isinstance(self.allow, str) or isinstance(self.deny, str):
            raise TypeError("allow and deny are tuples of labels: write ('group:finance',), with the comma")

    def as_json(self) -> dict[str, Any]:
        """The contract's `labels` object."""
        return {"allow": list(self.allow), "deny": list(self.deny), "classification": self.classification}


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to submit. The same `external_id` again makes a new version of the same document."""

    external_id: str  # unique for the tenant and source
    text: str
    labels: Labels | None  # None: the source's own
    title: str | None = None
    mime_type: str | None = None
    source: str | None = None  # None: the server's source for what is pushed
    uri: str | None = None  # where a reader opens it; citations carry it
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract's document object."""
        return {"text": self.text, **self.fields_as_json()}

    def fields_as_json(self) -> dict[str, Any]:
        """The contract's document object without its text; what is None is left out."""
        fields = {
            "external_id": self.external_id,
            "title": self.title,
            "mime_type": self.mime_type,
            "source": self.source,
            "uri": self.uri,
            "labels": None if self.labels is None else self.labels.as_json(),
            "metadata": dict(self.metadata),
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a document was refused or a job failed."""

    code: str | None  # stable, e.g. corrupt_document
    detail: str

    def __str__(self) -> str:
        return self.detail if self.code is None else f"{self.detail} ({self.code})"


@dataclass(frozen=True, slots=True)
class SubmittedDocument:
    """What became of a submission: kept, with a job under way, or unchanged, with nothing to do."""

    document_id: UUID
    version: int
    job_id: UUID | None  # None when unchanged
    unchanged: bool


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What became of one document of a batch."""

    index: int  # position among the documents given, from 0
    external_id: str
    document_id: UUID | None  # None when unchanged or refused
    version: int | None
    job_id: UUID | None
    unchanged: bool
    error: Reason | None  # why this one was refused; the others are not touched


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of accepted work."""

    id: UUID
    state: (
        str  # accepted | parsing | embedding | indexing | done | failed | quarantined | cancelled; a refresh: running
    )
    attempts: int
    error: Reason | None
    seq: int | None  # pass it to a search as `at_least` to see what this job wrote
    detail: Mapping[str, Any]  # what it counted and timed

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Document:
    """A document, as the caller may see it."""

    document_id: UUID
    source: str
    external_id: str
    title: str | None
    uri: str | None
    version: int | None  # the indexed version; None until the first one is
    mime_type: str | None
    language: str | None  # ISO 639, told from the text; None where that tells too little
    labels: Labels | None  # None when they are not for this caller
    metadata: Mapping[str, Any]
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """One page of a list."""

    documents: tuple[Document, ...]
    next_cursor: str | None  # None: the last page


@dataclass(frozen=True, slots=True)
class TextSpan:
    """text[start:end] of a version."""

    document_id: UUID
    version: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from, and when the server looks again."""

    source_id: UUID
    name: str
    kind: str  # folder | api
    config: Mapping[str, Any]  # folder: {"path": …}
    labels: Labels  # of documents that carry none
    schedule: str | None  # cron, UTC
    max_deleted_share: float  # a refresh that would delete more stops and waits for an operator
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a passage comes from: text[start:end] of that version is the passage."""

    marker: str  # e.g. [1], as it stands in the context
    document_id: UUID
    external_id: str
    version: int
    title: str | None
    uri: str | None
    page: int | None  # None means unknown
    heading_path: tuple[str, ...]
    start: int
    end: int
    content_hash: str
    superseded_by: UUID | None = None  # the newer document, where the caller may see it
    copies: int = 0  # other documents that say the same and that the caller may see, counted up to 100
    attached_to: UUID | None = None  # the message that the document came with
    attached_to_title: str | None = None  # that one's title, else its external id

    def as_metadata(self) -> dict[str, str | int | None]:
        """Flat and JSON-ready, for frameworks that carry metadata beside a text."""
        return {
            "marker": self.marker,
            "document_id": str(self.document_id),
            "external_id": self.external_id,
            "version": self.version,
            "page": self.page,
            "start": self.start,
            "end": self.end,
            "uri": self.uri,
            "title": self.title,
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """What ranked a passage; None: that leg did not propose it, or that stage did not run."""

    fused: float
    dense: float | None
    lexical: float | None
    rerank: float | None


@dataclass(frozen=True, slots=True)
class Passage:
    """What a search returns: a span of text with its citation."""

    rank: int  # from 1
    score: float  # larger is better; comparable within one answer only
    text: str
    citation: Citation
    scores: Scores
    flags: tuple[str, ...] = ()  # what its reader should know: hidden_text, card, …

    @property
    def id(self) -> str:
        """document:version:start-end, the same in every answer that holds this passage."""
        cited = self.citation
        return f"{cited.document_id}:{cited.version}:{cited.start}-{cited.end}"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage of the search did and how long it took."""

    stage: str
    ms: float
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The whole answer to a search, passages best first."""

    request_id: str
    passages: tuple[Passage, ...]
    context: str  # ready for a prompt; its markers are those of the citations
    degraded: tuple[str, ...]  # stages that the answer had to do without
    activity: tuple[Stage, ...]
    explanation: tuple[Explained, ...] = ()  # with `explain`, in the order that decided


def submitted_of(body: Json) -> SubmittedDocument:
    """From a 202 or 200 of a submission."""
    unchanged = bool(body.get("unchanged", False))
    job_id = None if unchanged else UUID(body["job_id"])
    return SubmittedDocument(UUID(body["document_id"]), int(body["version"]), job_id, unchanged)


def batch_record_of(body: Json, index: int, external_id: str) -> BatchRecord:
    """From one line of a batch's answer, given what was sent at that place."""
    if body.get("error") is not None:
        return BatchRecord(index, external_id, None, None, None, False, _reason(body["error"]))
    if body["external_id"] != external_id:
        raise ValueError(f"the line for {external_id!r} speaks of {body['external_id']!r}")
    if body.get("unchanged"):
        return BatchRecord(index, external_id, None, None, None, True, None)
    job_id = UUID(body["job_id"])
    return BatchRecord(index, external_id, UUID(body["document_id"]), int(body["version"]), job_id, False, None)


def job_of(body: Json, job_id: UUID) -> Job:
    """From a job's JSON, which need not repeat the id it was asked for."""
    error = body.get("error")
    return Job(
        id=job_id,
        state=str(body["state"]),
        attempts=int(body["attempts"]),
        error=None if error is None else _reason(error),
        seq=body.get("seq"),
        detail=body.get("detail") or {},
    )


def document_of(body: Json) -> Document:
    """From a document's JSON."""
    labels = body.get("labels")
    return Document(
        document_id=UUID(body["document_id"]),
        source=body["source"],
        external_id=body["external_id"],
        title=body.get("title"),
        uri=body.get("uri"),
        version=body["version"],
        mime_type=body.get("mime_type"),
        language=body.get("language"),
        labels=None if labels is None else labels_of(labels),
        metadata=body.get("metadata") or {},
        created_at=_time(body.get("created_at")),
        updated_at=_time(body.get("updated_at")),
    )


def document_page_of(body: Json) -> DocumentPage:
    """From one page of the list."""
    return DocumentPage(tuple(map(document_of, body["documents"])), body.get("next_cursor"))


def labels_of(body: Json) -> Labels:
    """From the contract's `labels` object."""
    return Labels(tuple(body["allow"]), tuple(body["deny"]), body["classification"])


def text_span_of(body: Json) -> TextSpan:
    """From the answer of `/text`."""
    return TextSpan(UUID(body["document_id"]), int(body["version"]), int(body["start"]), int(body["end"]), body["text"])


def source_of(body: Json) -> Source:
    """From a source's JSON."""
    return Source(
        source_id=UUID(body["source_id"]),
        name=body["name"],
        kind=body["kind"],
        config=body.get("config") or {},
        labels=labels_of(body["labels"]),
        schedule=body.get("schedule"),
        max_deleted_share=float(body["max_deleted_share"]),
        last_success_at=_time(body.get("last_success_at")),
    )


def search_answer_of(body: Json) -> SearchAnswer:
    """From the answer of a search."""
    return SearchAnswer(
        request_id=str(body["request_id"]),
        passages=tuple(map(_passage_of, body["passages"])),
        context=body["context"],
        degraded=tuple(body["degraded"]),
        activity=tuple(map(_stage_of, body["activity"])),
        explanation=tuple(map(explained_of, body.get("explanation") or ())),
    )


def _passage_of(body: Json) -> Passage:
    scores = body["scores"]
    return Passage(
        rank=int(body["rank"]),
        score=float(body["score"]),
        text=body["text"],
        citation=_citation_of(body["citation"]),
        scores=Scores(scores["fused"], scores.get("dense"), scores.get("lexical"), scores.get("rerank")),
        flags=tuple(body.get("flags") or ()),
    )


def _citation_of(body: Json) -> Citation:
    return Citation(
        marker=body["marker"],
        document_id=UUID(body["document_id"]),
        external_id=body["external_id"],
        version=int(body["version"]),
        title=body["title"],
        uri=body.get("uri"),
        page=body.get("page"),
        heading_path=tuple(body.get("heading_path") or ()),
        start=int(body["start"]),
        end=int(body["end"]),
        content_hash=body["content_hash"],
        superseded_by=UUID(body["superseded_by"]) if body.get("superseded_by") else None,
        copies=int(body.get("copies", 0)),
        attached_to=UUID(body["attached_to"]) if body.get("attached_to") else None,
        attached_to_title=body.get("attached_to_title"),
    )


def _stage_of(body: Json) -> Stage:
    rest = {name: value for name, value in body.items() if name not in ("stage", "ms")}
    return Stage(body["stage"], float(body["ms"]), rest)


def _reason(error: Any) -> Reason:
    """The contract leaves open whether an error is a text or an object of code and detail."""
    if isinstance(error, str):
        return Reason(None, error)
    return Reason(error.get("code"), str(error["detail"]))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
