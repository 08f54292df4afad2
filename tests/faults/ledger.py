"""What was accepted, what readers saw meanwhile, and whether at the end all of it is there, once and whole."""

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from core.errors import CitadelError, Retryable
from core.records import Labels, Principal, SearchRequest, Submission
from ingest.submit import submit
from models.fake_embedder import FakeEmbedder
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher, search
from store import access
from store.blobs import BlobStore
from store.pool import Store, reading_tenant, writing

PUBLIC = Labels(("public",))
READER = "user:reader@acme.example"
# Each document that a reader sees: its version's text, and what stands in the index for it.
SEEN = """
    SELECT d.external_id, d.current_version, v.text,
           array_agg(c.text ORDER BY c.ordinal), array_agg(c.version), array_agg(c.start_offset ORDER BY c.ordinal),
           (SELECT count(*) FROM vectors_1 x WHERE x.document_id = d.id),
           (SELECT count(*) FROM tokens_1 x WHERE x.document_id = d.id)
    FROM documents d JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
    LEFT JOIN chunks c ON c.document_id = d.id
    GROUP BY d.id, d.external_id, d.current_version, v.text
"""
PUBLISHED = "SELECT document_id, version, count(*) FROM change_log WHERE action = 'index' GROUP BY 1, 2"
VERSIONS = """
    SELECT d.external_id, v.version, v.content_hash FROM documents d JOIN versions v ON v.document_id = d.id
    ORDER BY d.external_id, v.version
"""


def text_of(name: str, serial: int, sections: int) -> str:
    """A document that says on each line which it is, so that a mixture of two shows; a chunk a section."""
    body = f"{name} says the words of its serial {serial} again " * 12
    return "\n\n".join(f"{name}\n\n{body.strip()} in section {n}." for n in range(sections))


@dataclass(slots=True)
class Ledger:
    """Texts that were offered and those that were accepted, by document."""

    offered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    accepted: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    refused: Counter[str] = field(default_factory=Counter)  # submissions without a 202, by error code
    lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, store: Store, blobs: BlobStore, tenant_id: UUID, name: str, text: str) -> UUID | None:
        """Submit as the API does; the job's id if it was accepted."""
        with self.lock:
            self.offered[name].add(text)
        submission = Submission(name, text.encode(), PUBLIC, mime_type="text/plain")
        try:
            kept = submit(store, blobs, tenant_id, submission, default_labels=False, expected=None)
        except Retryable as error:
            with self.lock:
                self.refused[error.code] += 1
            return None
        with self.lock:
            self.accepted[name][kept.version] = text
        return kept.job_id

    def offer(self, name: str, text: str) -> None:
        """A text that a source will bring."""
        with self.lock:
            self.offered[name].add(text)


@dataclass(slots=True)
class Readers:
    """Two threads that read all the while: one everything that stands in the index, one by searches."""

    store: Store
    tenant_id: UUID
    ledger: Ledger
    reads: int = 0
    searches: int = 0
    outages: int = 0
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what a reader died of
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._poll, args=(look,)) for look in (self._read, self._search)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _poll(self, look: object) -> None:
        assert callable(look)
        while not self.stopping.wait(0.05):
            try:
                look()
            except CitadelError:  # Postgres is away: no answer is no wrong answer
                self.outages += 1
                time.sleep(0.2)
            except BaseException as error:
                self.broken.append(f"reader: {type(error).__name__}: {error}")
                raise

    def _read(self) -> None:
        with reading_tenant(self.store, self.tenant_id) as conn:
            access.enter_scope(conn, Principal(self.tenant_id, READER))
            rows = conn.execute(SEEN).fetchall()
        for name, version, text, pieces, versions, starts, vectors, codes in rows:
            self.reads += 1
            whole = text in self._texts(name) and text.split() == " ".join(pieces).split() and starts[0] == 0
            if not whole or set(versions) != {version} or not len(pieces) == vectors == codes:
                self.wrong.append(f"{name}@{version}: {len(pieces)} chunks of {set(versions)}, {vectors}, {codes}")

    def _search(self) -> None:
        searcher = Searcher(self.store, FakeEmbedder(), RankBm25Index(self.store))
        try:
            request = SearchRequest("the words of its serial", top_k=20, mode="dense", as_ranked=True)
            passages = search(searcher, Principal(self.tenant_id, READER), request).passages
        finally:
            searcher.threads.shutdown(wait=False, cancel_futures=True)
        self.searches += 1
        seen: dict[str, set[int]] = defaultdict(set)
        for passage in passages:
            name = passage.citation.external_id
            seen[name].add(passage.citation.version)
            if not any(passage.text in text for text in self._texts(name)):
                self.wrong.append(f"{name}: a passage of no text that was offered")
        self.wrong += [f"{name}: an answer of two versions {found}" for name, found in seen.items() if len(found) > 1]

    def _texts(self, name: str) -> set[str]:
        with self.ledger.lock:
            return set(self.ledger.offered[name])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What must all be empty or 0."""

    lost: list[str]  # accepted versions that are not read, and that no later one replaced
    twice: list[str]  # versions published twice, or that repeat the one before
    half: list[str]  # what readers saw that was not all of one version


def judge(store: Store, ledger: Ledger, readers: Readers, quarantined: set[str], files: dict[str, str]) -> Verdict:
    """Compare the ledger, and the files of the source, with what stands in the index."""
    with writing(store) as conn:
        current = {name: (version, text) for name, version, text, *_ in conn.execute(SEEN).fetchall()}
        twice = [f"{document}@{version}: {n} times" for document, version, n in conn.execute(PUBLISHED) if n > 1]
        before: tuple[str, bytes] | None = None
        for name, version, digest in conn.execute(VERSIONS).fetchall():
            if before == (name, digest):
                twice.append(f"{name}@{version}: the same as the version before")
            before = (name, digest)
    lost = [
        f"{name}@{max(versions)}"
        for name, versions in ledger.accepted.items()
        if name not in quarantined and not _kept(versions, ledger.offered[name], current.get(name))
    ]
    lost += [f"file {name}" for name, text in files.items() if current.get(name, (0, ""))[1] != text]
    gone = {name for name in current if name.endswith(".txt")} - files.keys()
    return Verdict(lost, twice + [f"file {name} is still there" for name in gone], readers.wrong)


def _kept(versions: dict[int, str], offered: set[str], current: tuple[int, str] | None) -> bool:
    """Whether the last accepted text is read, or one that came after it and whose answer was lost."""
    if current is None:
        return False
    last = max(versions)
    return current == (last, versions[last]) or current[0] > last and current[1] in offered
