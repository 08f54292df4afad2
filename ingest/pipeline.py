"""Ingestion, top to bottom: from a claimed job to a version that readers see."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from core.records import Chunk, Lease, ParsedDocument, Profile
from core.sensitive import Policy, read_policy
from ingest.attachments import bring_in, keep
from ingest.chunk import ChunkBudget, chunk, embedded_text
from ingest.clock import Clock
from ingest.heartbeat import heartbeat
from ingest.prepare import prepare
from ingest.sandbox import ParserSandbox
from ingest.screen import REGION
from models.embedder import Embedder
from models.shelf import Shelf
from store import chunks, jobs, policies
from store.blobs import BlobStore
from store.pool import Store, writing
from store.profiles import live_profile

Vectors = npt.NDArray[np.float32]  # [chunks, dimensions]
Told = Callable[..., AbstractContextManager[None]]  # of the leases whose step runs within


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a worker process ingests with."""

    store: Store
    blobs: BlobStore
    parser: ParserSandbox
    embedder: Embedder | None  # None: the shelf opens what a document needs, and a process without one opens nothing
    lease_s: float
    max_backlog: int = 100_000  # open jobs of a tenant, above which its refreshes wait
    shelf: Shelf = field(default_factory=Shelf)  # of other profiles' models
    together: int = 8  # small documents; of one chunk each they are embedded in 0.82 of the time they take one by one
    policy: Policy = field(default_factory=lambda: read_policy(""))  # where neither source nor tenant has its own
    phone_region: str = REGION


@dataclass(frozen=True, slots=True)
class Draft:
    """A version on its way: parsed and cut, not yet embedded."""

    lease: Lease
    parsed: ParsedDocument
    pieces: tuple[Chunk, ...]
    ms: dict[str, float]  # by stage

    def texts(self) -> list[str]:
        """What is embedded of it."""
        return [embedded_text(self.parsed.text, piece) for piece in self.pieces]


def index_versions(pipeline: Pipeline, leases: Sequence[Lease], told: Told) -> None:
    """Parse and chunk each job's version, embed the chunks of all together, publish each: the jobs are of one tenant.

    Each step of a job runs within `told(job)`, which writes down what went wrong as how that job ended, and goes on:
    what one document is to blame for stops no other. Raises Retryable, ModelMismatch when nothing could begin.
    """
    with writing(pipeline.store) as conn:
        profile = live_profile(conn, leases[0].job.tenant_id)  # as it is now: the tenant's searches look there
    embedder = pipeline.shelf.fitting(pipeline.embedder, profile)
    drafts: list[Draft] = []
    with heartbeat(pipeline.store, pipeline.lease_s, *leases):
        for lease in leases:
            with told(lease):
                drafts += draft(pipeline, lease, profile, embedder)
        with told(*(made.lease for made in drafts)):
            for made, vectors, codes in embedded(embedder, drafts):
                with told(made.lease):
                    publish(pipeline, made, profile, vectors, codes)


def draft(pipeline: Pipeline, lease: Lease, profile: Profile, embedder: Embedder) -> list[Draft]:
    """The job's version, parsed, screened and cut; none, and the job is done, when there is nothing to index any more.

    Raises Unparseable, SensitiveContent, Retryable.
    """
    document_id, version = lease.job.document_id, lease.job.version
    assert document_id is not None and version is not None
    with writing(pipeline.store) as conn:
        wanted = chunks.to_index(conn, document_id, version)
        if wanted is None:  # deleted, or a newer version is already read
            jobs.finish(conn, lease, None, {"superseded": True})
            return []
        policy = policies.in_force(conn, document_id, pipeline.policy)
    clock = Clock()
    with clock.stage("fetch"):
        content = pipeline.blobs.get(wanted.blob_key)
    with clock.stage("parse"):
        parsed = pipeline.parser.parse(content, wanted.filename, wanted.mime_type)
    with clock.stage("screen"):
        parsed = prepare(parsed, wanted.title, wanted.filename, policy, pipeline.phone_region)
    with writing(pipeline.store) as conn:
        jobs.set_state(conn, lease, "embedding")
    with clock.stage("chunk"):
        budget = ChunkBudget(chunk_tokens=profile.chunk_tokens)
        pieces = chunk(parsed, parsed.title, profile.chunker, budget, embedder)
    return [Draft(lease, parsed, pieces, clock.ms)]


def embedded(embedder: Embedder, drafts: Sequence[Draft]) -> Iterator[tuple[Draft, Vectors, Sequence[bytes]]]:
    """Each draft with its chunks' vectors and codes; the time that all took is shared out by chunks."""
    clock = Clock()
    with clock.stage("embed"):
        vectors, codes = embedder.embed_documents_with_tokens([text for made in drafts for text in made.texts()])
    end = 0
    for made in drafts:
        start, end = end, end + len(made.pieces)
        made.ms["embed"] = round(clock.ms["embed"] * (end - start) / max(1, len(vectors)), 1)
        yield made, vectors[start:end], codes[start:end]


def publish(pipeline: Pipeline, made: Draft, profile: Profile, vectors: Vectors, codes: Sequence[bytes]) -> None:
    """Make the version the one that readers see, and its attachments documents below it.

    Raises LeaseLost; ProfileMoved, to be done again for another one.
    """
    with writing(pipeline.store) as conn:
        jobs.set_state(conn, made.lease, "indexing")
    carried = keep(pipeline.blobs, made.parsed.attachments)
    with writing(pipeline.store) as conn:
        if chunks.publish(conn, made.lease, profile.id, made.parsed, made.pieces, vectors, made.ms, codes):
            bring_in(conn, pipeline.blobs, made.lease, carried, made.parsed, pipeline.parser.limits)
