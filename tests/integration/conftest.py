"""What the ingestion tests share: an embedder that counts, and a folder that is refreshed as a worker would."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from psycopg import sql

from api.jwks import JwksCache
from api.service import Service
from core.records import Document, Job, Labels, Passage, Principal, SearchRequest, Source
from ingest.attempt import attempt
from ingest.pipeline import Pipeline
from ingest.sandbox import ParserSandbox
from ingest.schedule import add_folder, request_refresh
from models.embedder import Embedder
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher, search
from store import access, documents, jobs, sources
from store.pool import reading_tenant, writing
from tests.conftest import World
from tests.integration.serving import (
    EC,
    RSA,
    Clock,
    KeyServer,
    NoBroker,
    Place,
    Push,
    key_server,
    public_jwk,
    pushing,
    serving,
)

ANA, BEN = "user:ana@acme.example", "user:ben@acme.example"  # finance and staff; staff


@dataclass(frozen=True, slots=True)
class CountingEmbedder:
    """An embedder that remembers the documents' texts it was given."""

    inner: Embedder
    texts: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def dimensions(self) -> int:
        return self.inner.dimensions

    @property
    def precision(self) -> str:
        return self.inner.precision

    @property
    def max_tokens(self) -> int:
        return self.inner.max_tokens

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts.extend(texts)
        return self.inner.embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self.inner.embed_queries(texts)

    @property
    def token_bits(self) -> int:
        return self.inner.token_bits

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        self.texts.extend(texts)
        return self.inner.embed_documents_with_tokens(texts)

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        return self.inner.embed_queries_with_tokens(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return self.inner.token_offsets(text)

    def take(self) -> list[str]:
        """What was embedded since the last look."""
        taken = list(self.texts)
        self.texts.clear()
        return taken


@dataclass(frozen=True, slots=True)
class Site:
    """A folder source with everything that refreshes, indexes and searches it, in this process."""

    world: World
    pipeline: Pipeline
    embedder: CountingEmbedder
    searcher: Searcher
    folder: Path
    source_id: UUID

    def write(self, path: str, content: str | bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    @property
    def source(self) -> Source:
        with writing(self.world.store) as conn:
            return sources.by_id(conn, self.world.tenant_id, self.source_id)

    def refresh(self, **asked: bool) -> Job:
        """A refresh job at its end, and then every indexing job that is due; `asked` as `request_refresh` takes it."""
        job = self.refresh_only(**asked)
        self.index()
        return job

    def refresh_only(self, **asked: bool) -> Job:
        job_id = request_refresh(self.world.store, self.world.tenant_id, self.source_id, **asked)
        attempt(self.pipeline, job_id)
        return self.job(job_id)

    def index(self) -> dict[UUID, str]:
        """One attempt at each open indexing job, with its outcome."""
        with writing(self.world.store) as conn:
            rows = conn.execute("SELECT id FROM jobs WHERE kind = 'index' AND state = 'accepted' ORDER BY created_at")
            open_jobs = [row[0] for row in rows]
        return {job_id: attempt(self.pipeline, job_id) for job_id in open_jobs}

    def job(self, job_id: UUID) -> Job:
        with writing(self.world.store) as conn:
            return jobs.get(conn, job_id)

    def job_of(self, external_id: str) -> Job:
        """The latest job that worked on this document."""
        document_id = self.documents()[external_id].id
        with writing(self.world.store) as conn:
            row = conn.execute(
                "SELECT id FROM jobs WHERE document_id = %s ORDER BY created_at DESC, id LIMIT 1", (document_id,)
            ).fetchone()
        assert row is not None
        return self.job(row[0])

    def documents(self) -> dict[str, Document]:
        """Every document of the source, as an operator sees it."""
        with reading_tenant(self.world.store, self.world.tenant_id) as conn:
            access.enter_scope(conn, Principal(self.world.tenant_id, "service:operator", bypass=True))
            rows = conn.execute("SELECT id FROM documents WHERE source_id = %s", (self.source_id,)).fetchall()
            found = [documents.get(conn, row[0]) for row in rows]
        return {document.external_id: document for document in found}

    def ask(self, subject: str, query: str = "text", mode: Any = "dense") -> list[Passage]:
        """What a search finds; a dense one finds every chunk that the subject may see."""
        request = SearchRequest(query, top_k=50, mode=mode)
        answer = search(self.searcher, self.world.who(subject), request)
        assert answer.degraded == ()
        return list(answer.passages)

    def seen_by(self, subject: str) -> dict[str, str]:
        """The text of each document that the subject finds, by external id."""
        found: dict[str, str] = {}
        for passage in sorted(self.ask(subject), key=lambda p: p.citation.start):
            name = passage.citation.external_id
            found[name] = f"{found.get(name, '')}{passage.text}"
        return found

    def chunks_of(self, external_id: str) -> int:
        """How many chunks stand in the index for the document's current version."""
        document = self.documents()[external_id]
        with writing(self.world.store) as conn:
            row = conn.execute(
                "SELECT count(*) FROM chunks WHERE document_id = %s AND version = %s", (document.id, document.version)
            ).fetchone()
        assert row is not None
        return int(row[0])

    def blob_of(self, external_id: str) -> str:
        """The key of the bytes of the document's latest version."""
        with writing(self.world.store) as conn:
            key = sources.known(conn, self.source_id, external_id)[1]
        assert key is not None
        return key

    def rows(self, table: str, document_id: UUID) -> int:
        """How many rows of a table belong to a document."""
        statement = sql.SQL("SELECT count(*) FROM {} WHERE document_id = %s").format(sql.Identifier(table))
        with writing(self.world.store) as conn:
            row = conn.execute(statement, (document_id,)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="session")
def parser() -> Iterator[ParserSandbox]:
    """One warm parser for all tests: starting it takes seconds."""
    with ParserSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def embedder(world: World) -> CountingEmbedder:
    """The world's embedder, counted."""
    return CountingEmbedder(world.embedder)


@pytest.fixture
def pipeline(world: World, parser: ParserSandbox, embedder: CountingEmbedder) -> Pipeline:
    """What a worker ingests with."""
    return Pipeline(world.store, world.blobs, parser, embedder, lease_s=60, together=1)


@pytest.fixture
def site(world: World, pipeline: Pipeline, embedder: CountingEmbedder, tmp_path: Path) -> Iterator[Site]:
    """An empty folder as the source `files`, which no label opens by default; Ana is in finance, both are staff."""
    folder = tmp_path / "files"
    folder.mkdir()
    world.groups({"group:staff": [ANA, BEN], "group:finance": [ANA]})
    source = add_folder(world.store, world.tenant_id, "files", {"path": str(folder)}, Labels(), None, 0.5)
    searcher = Searcher(world.store, world.embedder, RankBm25Index(world.store))
    yield Site(world, pipeline, embedder, searcher, folder, source.id)
    searcher.threads.shutdown(wait=True)


# --- identity: a provider's keys, a served tenant, a directory that pushes -----------------------------------------


@pytest.fixture
def published() -> Iterator[KeyServer]:
    with key_server() as state:
        state.keys = [public_jwk(RSA, "k1"), public_jwk(EC, "e1")]
        yield state


@pytest.fixture
def place(world: World, searcher: Searcher, published: KeyServer) -> Iterator[Place]:
    clock = Clock()
    service = Service(world.store, world.blobs, searcher, NoBroker(), 2**20, jwks=JwksCache(clock=clock))
    world.add("open", "for all", ("public",))
    world.add("hers", "for ana", ("user:ana@acme.example",))
    world.add("books", "for finance", ("group:finance",))
    world.add("staff", "for staff", ("group:staff",), deny=("group:contractors",))
    world.groups({"group:staff": ["group:finance", "group:contractors"]})
    with serving(service) as client:
        made = Place(world, client, published, clock)
        made.provider()
        yield made


@pytest.fixture
def client(world: World, searcher: Searcher) -> Iterator[httpx.Client]:
    with serving(Service(world.store, world.blobs, searcher, NoBroker(), 2**20, jwks=JwksCache())) as opened:
        yield opened


@pytest.fixture
def push(world: World, client: httpx.Client) -> Push:
    world.add("open", "for all", ("public",))
    world.add("hers", "for ana", ("user:ana@acme.example",))
    world.add("books", "for finance", ("group:Finance",))
    return pushing(world, client)
