"""The nouns that flow between the folders: one frozen record a concept.

Offsets are counted in Unicode code points of a version's canonical text; spans are half-open.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple
from uuid import UUID

from core.attachments import Attachment, RefusedAttachment
from core.copies import Copies, Fingerprint
from core.explained import Explained
from core.flags import Flag
from core.sensitive import Screening

# --- access ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Labels:
    """Who may see a document. Built by `core.labels.make_labels`, which checks and sorts."""

    allow: tuple[str, ...] = ()  # holding any one of these opens the document; none at all: nobody but an operator
    deny: tuple[str, ...] = ()  # holding any one of these closes it, whatever is allowed
    classification: str = "internal"  # a name on the tenant's ordered scale


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user or a service of one tenant, as established by a credential."""

    tenant_id: UUID
    subject: str  # the principal's own label, e.g. user:ana@acme.example
    ceiling: tuple[str, ...] | None = None  # allow labels that the credential may use; None: no ceiling
    max_classification: str | None = None  # the credential's own clearance; None: the principal's
    bypass: bool = False  # an operator acting as itself: every label set of the tenant, and audited as such
    via: str | None = None  # service:<key> that acts for the subject, or idp:<provider> whose token speaks for it
    claims: tuple[str, ...] = ()  # labels that the token gives, held beside the stored memberships


@dataclass(frozen=True)  # without slots: what it looks like to Postgres is worked out once
class AccessScope:
    """The label sets that a principal may see, as read at one access epoch. No search runs without one."""

    tenant_id: UUID
    subject: str
    label_set_ids: tuple[int, ...]  # may be empty: nothing is visible
    epoch: int

    @cached_property
    def array(self) -> str:
        """The label sets as an int[] of Postgres: some 6 bytes each."""
        return "{" + ",".join(map(str, self.label_set_ids)) + "}"

    @cached_property
    def bits(self) -> str:
        """A bit for each id from the lowest to the highest, in hexadecimal; empty when nothing is visible."""
        if not self.label_set_ids:
            return ""
        base, bits = self.base, bytearray((max(self.label_set_ids) - self.base) // 8 + 1)
        for place in (label_set_id - base for label_set_id in self.label_set_ids):
            bits[place >> 3] |= 0x80 >> (place & 7)
        return bits.hex()

    @cached_property
    def digest(self) -> str:
        """sha256 in hex of the ids in ascending order with commas between."""
        return hashlib.sha256(",".join(map(str, sorted(self.label_set_ids))).encode()).hexdigest()

    @cached_property
    def base(self) -> int:
        """The label set that the first of `bits` is for."""
        return min(self.label_set_ids, default=0)

    @cached_property
    def dense(self) -> bool:
        """Whether the bits are shorter than the array."""
        ids = self.label_set_ids
        return bool(ids) and (max(ids) - self.base) // 4 < len(self.array)


# --- ingestion ------------------------------------------------------------------------------------------------------

ElementKind = Literal["heading", "paragraph", "list_item", "table", "code"]


@dataclass(frozen=True, slots=True)
class Element:
    """A structural part of a canonical text. Elements are in order and do not overlap."""

    kind: ElementKind
    start: int
    end: int
    level: int = 0  # headings: 1 is the topmost
    page: int | None = None  # first page is 1; None where the format has no pages
    context: str = ""  # what repeats for each piece of it, e.g. a table's header row or a sheet's name
    row: int | None = None  # of a sheet: the row that its first line is; each further line is the next one


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a parser makes of a file: its canonical text and the elements that lie on it."""

    text: str  # newline is \n; no NUL, no lone surrogates
    elements: tuple[Element, ...]
    mime_type: str  # the sniffed one
    title: str | None = None
    warnings: tuple[str, ...] = ()  # e.g. "page 3 holds no text: a scan?"
    flags: tuple[Flag, ...] = ()  # by place
    language: str | None = None  # ISO 639, told from the text; None where it tells too little
    screening: Screening | None = None  # None: it was not looked through
    fingerprint: Fingerprint | None = None  # of the text as it is here; None: upkeep makes it
    attachments: tuple[Attachment, ...] = ()
    refused: tuple[RefusedAttachment, ...] = ()  # attachments that are over a limit


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of the canonical text, with what is embedded in front of it."""

    ordinal: int
    start: int
    end: int
    page_start: int | None = None
    page_end: int | None = None
    heading_path: tuple[str, ...] = ()
    embed_prefix: str = ""  # title, heading path, table header: embedded and indexed, never part of the passage
    tokens: int = 0  # of the span alone, by the profile's tokenizer
    flags: tuple[str, ...] = ()  # kinds of the flags that lie on the span, sorted


@dataclass(frozen=True, slots=True)
class Submission:
    """A document as its submitter hands it over."""

    external_id: str
    content: bytes
    labels: Labels
    source: str = "api"
    title: str | None = None
    mime_type: str | None = None  # what the submitter says; the sniffed type wins
    filename: str | None = None  # a hint for the parser; never a path
    uri: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    read_hash: str | None = None  # of the bytes that a parser reads, where others only say who may; None: of all bytes


@dataclass(frozen=True, slots=True)
class Submitted:
    """What the store made of a submission, after its commit."""

    document_id: UUID
    version: int
    job_id: UUID | None  # None when unchanged
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A document's row, as a reader may see it."""

    id: UUID
    source: str
    external_id: str
    title: str | None
    uri: str | None
    version: int | None  # the current, indexed version; None until the first is indexed
    latest_version: int  # the submitted one: what If-Match is compared with
    mime_type: str | None
    language: str | None  # of the current version
    labels: Labels
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    attached_to: UUID | None = None  # the message that it came with


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of accepted work; its row in Postgres is the only truth about it."""

    id: UUID
    tenant_id: UUID
    kind: str  # index | refresh | eval
    state: str  # accepted | parsing | embedding | indexing | running | done | failed | quarantined | cancelled
    document_id: UUID | None
    version: int | None
    source_id: UUID | None
    attempts: int  # that the document may be to blame for; the third is the last
    faults: int  # tries in a row that it is not: a store was away, a model did not load
    error_code: str | None
    error: str | None
    seq: int | None  # the change-log position at which its effect is visible
    detail: dict[str, Any]
    next_try_at: datetime | None  # None: it is under way, or at its end
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a job; writes made under it carry the token, so that a late worker's are refused."""

    job: Job
    token: int


@dataclass(frozen=True, slots=True)
class Profile:
    """An embedding profile: a model, its dimensions and the chunking. Index tables belong to one profile."""

    id: int
    name: str
    model: str
    dimensions: int
    precision: str  # part of the profile: bf16 and f32 vectors are not the same vectors
    chunk_tokens: int
    chunker: str  # "structure", or the name of a LlamaIndex node parser


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from, and when to look again."""

    id: UUID
    tenant_id: UUID
    name: str
    kind: str  # api | folder | files | git | website | mail | sql | reader
    config: dict[str, Any]  # of its kind, as ingest.sources.config checks it; secrets by reference only
    labels: Labels  # default for what carries none
    schedule: str | None  # cron
    max_deleted_share: float  # of the source's documents, in one refresh
    last_success_at: datetime | None  # the end of the last complete refresh
    paused_at: datetime | None = None  # since when it is not refreshed; None: it is
    timezone: str = "UTC"  # whose clock the schedule is read by
    jitter_s: int = 0  # a scheduled refresh is up to so many seconds late, so that sources do not start together
    next_due_at: datetime | None = None
    content_as_of: datetime | None = None  # what the source held then is what is held here
    permissions_as_of: datetime | None = None  # the same, of who may see it
    lag_s: float = 0.0  # age of the first due refresh that is not done


# --- retrieval ------------------------------------------------------------------------------------------------------

Mode = Literal["hybrid", "dense", "lexical"]
FusionMethod = Literal["convex", "rrf"]
MOST_RRF_K = 1000


@dataclass(frozen=True, slots=True)
class Fusion:
    """How a tenant's legs become one list."""

    method: FusionMethod = "convex"
    dense_weight: float = 0.4  # convex alone: of the dense leg, the lexical one has the rest
    rrf_k: int = 60  # rrf alone: how slowly a rank's worth falls; 60 as in the paper


@dataclass(frozen=True, slots=True)
class Recency:
    """How much a document's age counts; the formula is in retrieval/recency.py."""

    half_life_days: float  # after so long a document has half of what one of today has
    weight: float = 0.3  # of the age against the fused score, 0 to 1
    field: str = "updated_at"  # updated_at, created_at, or metadata.<key> with an ISO 8601 date


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One question, with what the caller asks of the answer."""

    query: str
    queries: tuple[str, ...] = ()  # variants that the agent adds
    top_k: int = 8
    mode: Mode = "hybrid"
    filters: dict[str, Any] | None = None
    rerank: str | None = None  # `none`, `late` or another's name; None: late interaction for hybrid, else none
    max_tokens: int | None = None  # of the context string
    at_least: int | None = None  # change-log position that must be visible
    explain: bool = False
    recency: Recency | None = None  # None: age does not count
    fusion: Fusion | None = None  # None: the tenant's own
    as_ranked: bool = False  # every chunk a passage of its own, with near-duplicates: for measuring the ranking


class Candidate(NamedTuple):
    """A chunk that a leg of the search proposes; a larger score is better. (A tuple: 400 of them a search take 0.2 ms,
    as frozen dataclasses 0.7.)"""

    chunk_id: int
    score: float


class FusedCandidate(NamedTuple):
    """A chunk after fusion, with the score of each leg that proposed it."""

    chunk_id: int
    fused: float
    dense: float | None = None
    lexical: float | None = None
    rerank: float | None = None  # fused and reranker's together, on the scale of `fused`; None: not reranked


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk's text and its document's row, as read under row-level security."""

    chunk_id: int
    document_id: UUID
    external_id: str
    source: str
    version: int
    title: str | None
    uri: str | None
    ordinal: int
    start: int
    end: int
    page_start: int | None
    page_end: int | None
    heading_path: tuple[str, ...]
    tokens: int
    text: str
    parent_id: UUID | None = None  # the message that it is an attachment of
    parent_name: str | None = None  # that one's title, else its external id
    successor: str | None = None  # external id of the newer document of its source that its metadata names
    superseded_by: UUID | None = None  # that document, where the reader sees it too
    flags: tuple[str, ...] = ()  # kinds of what its reader should know, e.g. hidden_text
    copies: Copies | None = None  # None: nothing is known


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk lies in its document's current version."""

    external_id: str
    start: int  # of the canonical text, in code points, half-open
    end: int


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a passage comes from: text[start:end] of that version is the passage, byte for byte."""

    marker: str  # e.g. [1], as it stands in the context
    document_id: UUID
    external_id: str
    version: int
    title: str | None
    uri: str | None
    page: int | None  # None means unknown, never a guess
    heading_path: tuple[str, ...]
    start: int
    end: int
    content_hash: str  # sha256 of the passage's UTF-8 bytes
    superseded_by: UUID | None = None  # the newer document, where the caller may see it
    copies: int = 0  # other documents that say the same and that the caller may see, counted up to 100
    attached_to: UUID | None = None  # the message that the document came with
    attached_to_title: str | None = None  # that one's title, else its external id


@dataclass(frozen=True, slots=True)
class Passage:
    """What a search returns: a chunk with its citation and the scores that ranked it."""

    rank: int
    score: float
    text: str
    citation: Citation
    scores: FusedCandidate
    flags: tuple[str, ...] = ()  # kinds of what its reader should know, e.g. hidden_text; sorted


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of `activity`: what a stage did and how long it took."""

    stage: str
    ms: float
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The whole answer to a search."""

    request_id: UUID
    passages: tuple[Passage, ...]
    context: str
    degraded: tuple[str, ...]
    activity: tuple[Stage, ...]
    explanation: tuple[Explained, ...] | None = None  # of the candidates near the cut, when asked for
    recalled: bool = False  # its ranking was kept of an equal search
