"""The bodies that come in, v1: each is checked here. What goes out is in `api/answers.py`."""

import json
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.errors import Invalid
from core.feedback import Feedback, Missing
from core.labels import make_labels
from core.records import MOST_RRF_K, Fusion, FusionMethod, Labels, Recency, SearchRequest

MAX_METADATA = 64 * 1024  # bytes of JSON
MAX_NESTING = 32  # levels of JSON; what is kept must come out again, and pydantic's own writer ends at 255


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("text may hold neither NUL nor lone surrogates")
    return text


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    if _deeper(value, MAX_NESTING):
        raise ValueError(f"may nest {MAX_NESTING} deep")
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise ValueError("must be JSON without NaN or infinities") from error
    _storable(text)
    if "\\u0000" in text or len(text.encode()) > MAX_METADATA:
        raise ValueError(f"may hold no NUL and up to {MAX_METADATA} bytes")
    return value


def _deeper(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(part, levels - 1) for part in parts)


Text = Annotated[str, AfterValidator(_storable)]
Question = Annotated[Text, Field(min_length=1, max_length=8000)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable_json)]


class Body(BaseModel):
    """A request body: unknown fields are errors, so that a misspelt `labels` never means `no labels`."""

    model_config = ConfigDict(extra="forbid")


class LabelsIn(Body):
    """Who may see a document."""

    allow: list[Text] = Field(default=[], max_length=1000)
    deny: list[Text] = Field(default=[], max_length=1000)
    classification: Text = "internal"

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"allow": ["group:staff"], "deny": [], "classification": "internal"}]},
    )

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
    metadata: JsonObject = Field(
        default={},
        description="For filters. `superseded_by`: the external_id in its source of what replaces it.",
    )


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


class RecencyIn(Body):
    """How much a document's age counts: `fused' = (1 - weight) · fused + weight · top · 2^(-age / half_life_days)`."""

    half_life_days: float = Field(
        gt=0, le=36500, description="After so long a document has half of what a new one has."
    )
    weight: float = Field(default=0.3, ge=0, le=1)
    field: Text = Field(
        default="updated_at", max_length=200, pattern=r"^(created_at|updated_at|metadata\..+)$",
        description="The date: created_at, updated_at, or metadata.<key> in ISO 8601. Without one, age does not count.",
    )  # fmt: skip


class SearchIn(Body):
    """A question."""

    query: Question
    queries: list[Question] = Field(default=[], max_length=8, description="Variants of the question, searched with it.")
    top_k: int = Field(default=8, ge=1, le=100)
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    filters: dict[str, Any] | None = None
    rerank: Text | None = Field(default=None, max_length=200)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    recency: RecencyIn | None = None
    at_least: int | None = Field(default=None, ge=0, le=2**63 - 1)
    explain: bool = Field(
        default=False, description="Tell of the candidates near the cut: who proposed each, and what became of it."
    )

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "How are flights booked?", "top_k": 5}]}
    )

    def record(self) -> SearchRequest:
        """As the search takes it."""
        recency = self.recency and Recency(**dict(self.recency))
        return SearchRequest(**{**dict(self), "queries": tuple(self.queries), "recency": recency})


class MissingIn(Body):
    """What the answer should have had."""

    document: Text | None = Field(default=None, min_length=1, max_length=1024, description="Its external_id.")
    text: Text | None = Field(default=None, min_length=1, max_length=4000, description="Words that it should have had.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.document is None) == (self.text is None):
            raise ValueError("give either document or text")
        return self


class FeedbackIn(Body):
    """What somebody says of an answer that it got."""

    request_id: UUID = Field(description="Of the answer.")
    helpful: bool | None = None
    used: list[Annotated[str, Field(pattern=r"^\[[1-9][0-9]{0,2}\]$")]] = Field(
        default=[], max_length=100, description="Markers of the passages that were used."
    )
    missing: list[MissingIn] = Field(default=[], max_length=10)
    comment: Text | None = Field(default=None, min_length=1, max_length=4000)
    query: Question | None = Field(default=None, description="The question again, so that it can become a judgement.")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"request_id": "0b0d5e0c-52a4-4d0e-8a07-6f4c1b2b9c11", "helpful": True, "used": ["[1]"],
                 "missing": [{"document": "handbook/trains.md"}], "comment": "And by train?"}
            ]
        },
    )  # fmt: skip

    def record(self) -> Feedback:
        """As it is kept. Raises Invalid when it says nothing."""
        if self.helpful is None and not (self.used or self.missing or self.comment):
            raise Invalid("say something: helpful, used, missing or comment")
        return Feedback(
            self.request_id, self.helpful, tuple(sorted({int(marker[1:-1]) for marker in self.used})),
            tuple(Missing(each.document, each.text) for each in self.missing), self.comment, self.query,
        )  # fmt: skip


class FusionIn(Body):
    """How the dense and lexical legs become one list."""

    method: FusionMethod = Field(description="`convex`: of scaled scores. `rrf`: of ranks.")
    dense_weight: float = Field(default=Fusion().dense_weight, ge=0, le=1, description="Of the convex combination.")
    rrf_k: int = Field(default=Fusion().rrf_k, ge=1, le=MOST_RRF_K, description="Of reciprocal rank fusion.")

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"method": "convex", "dense_weight": 0.4}]}
    )


class SourceIn(Body):
    """A source to refresh."""

    name: Text = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")
    kind: Literal["folder", "files", "git", "website"] = "folder"
    path: Text | None = Field(default=None, min_length=1, max_length=4096,
                              description="Of a folder: where it lies on the workers' machine.")  # fmt: skip
    url: Text | None = Field(default=None, min_length=1, max_length=4096, description="Of the other kinds.")
    uri_prefix: Text | None = Field(default=None, max_length=2048, description="What a citation's uri starts with.")
    settings: Annotated[dict[str, Any], AfterValidator(_storable_json)] = Field(
        default={}, description="What else the kind knows: see docs/sources.md."
    )
    labels: LabelsIn = Field(default=LabelsIn(), description="For files that no rule covers.")
    schedule: Text | None = Field(default=None, max_length=200, description="Cron.")
    timezone: Text = Field(default="UTC", max_length=64, description="Whose clock the schedule is read by.")
    jitter_s: int = Field(default=0, ge=0, le=86400, description="Each time up to so many seconds later.")
    max_deleted_share: float = Field(default=0.3, ge=0, le=1)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "handbook", "path": "/srv/handbook", "schedule": "*/15 * * * *"}]},
    )


class RefreshIn(Body):
    """How to refresh."""

    allow_mass_delete: bool = False
    permissions_only: bool = False
    allow_missing_rules: bool = False

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"allow_mass_delete": False}]})
