"""Ingestion, top to bottom: from a claimed job to a version that readers see."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from core.errors import LeaseLost, Retryable
from core.records import Lease
from ingest.chunk import ChunkBudget, chunk, embedded_text
from ingest.sandbox import ParserSandbox
from models.embedder import Embedder
from models.language import language_of
from models.shelf import Shelf
from store import chunks, jobs
from store.blobs import BlobStore
from store.pool import Store, writing
from store.profiles import live_profile


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a worker process ingests with."""

    store: Store
    blobs: BlobStore
    parser: ParserSandbox
    embedder: Embedder
    lease_s: float
    max_backlog: int = 100_000  # open jobs of a tenant, above which its refreshes wait
    shelf: Shelf = field(default_factory=Shelf)  # of other profiles' models


def index_version(pipeline: Pipeline, lease: Lease) -> None:
    """Parse, chunk, embed and publish the job's version. Raises Unparseable, Retryable, ModelMismatch.

    ProfileMoved, a Retryable, when the tenant came to live on another profile meanwhile: it is done again for that one.
    """
    document_id, version = lease.job.document_id, lease.job.version
    assert document_id is not None and version is not None
    clock = _Clock()
    with writing(pipeline.store) as conn:
        wanted = chunks.to_index(conn, document_id, version)
        if wanted is None:  # deleted, or a newer version is already read
            jobs.finish(conn, lease, None, {"superseded": True})
            return
        profile = live_profile(conn, lease.job.tenant_id)  # the tenant's own, as it is now: its searches look there
    embedder = pipeline.shelf.fitting(pipeline.embedder, profile)
    with heartbeat(pipeline, lease):
        with clock.stage("fetch"):
            content = pipeline.blobs.get(wanted.blob_key)
        with clock.stage("parse"):
            parsed = pipeline.parser.parse(content, wanted.filename, wanted.mime_type)
            parsed = replace(parsed, language=language_of(parsed.text))
        with writing(pipeline.store) as conn:
            jobs.set_state(conn, lease, "embedding")
        with clock.stage("chunk"):
            budget = ChunkBudget(chunk_tokens=profile.chunk_tokens)
            pieces = chunk(parsed, wanted.title or parsed.title, profile.chunker, budget, embedder)
        with clock.stage("embed"):
            texts = [embedded_text(parsed.text, piece) for piece in pieces]
            vectors, codes = embedder.embed_documents_with_tokens(texts)
        with writing(pipeline.store) as conn:
            jobs.set_state(conn, lease, "indexing")
        with writing(pipeline.store) as conn:
            chunks.publish(conn, lease, profile.id, parsed, pieces, vectors, clock.ms, codes)


@contextmanager
def heartbeat(pipeline: Pipeline, lease: Lease) -> Iterator[None]:
    """Keep the lease while the body runs; once it is lost, what the body computes is refused at its commit."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(pipeline.lease_s / 3):
            try:
                with writing(pipeline.store) as conn:
                    jobs.renew(conn, lease, pipeline.lease_s)
            except LeaseLost:
                return
            except Retryable:  # Postgres is away: the lease may yet outlast it
                continue

    thread = threading.Thread(target=beat, name=f"heartbeat-{lease.job.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Clock:
    """Milliseconds by stage."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = round((time.perf_counter() - started) * 1000, 1)
