"""How soon a change of labels on a large document holds for every reader, and what it embeds: nothing."""

import statistics
import time
from uuid import UUID

from cli.sources import wait_for_indexing
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.labels import make_labels
from core.records import Principal, Submission
from ingest.submit import change_labels, submit
from store import access, chunks
from store.blobs import FsspecBlobs
from store.pool import Store, reading_tenant, writing
from store.profiles import live_profile

ANA, BEN = "user:ana@acme.example", "user:ben@acme.example"
CHANGES = 10
WORDS = 46  # of a paragraph, of some 3 tokens each: more than half a chunk, so that each is one


def label_change(settings: Settings, size: int) -> dict[str, object]:
    """Milliseconds from the call until whoever gains and whoever loses see the change in the index."""
    paragraphs = [" ".join(f"word{(n * 31 + m) % 900}" for m in range(WORDS)) + "." for n in range(size)]
    content = "\n\n".join(paragraphs).encode()
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        submission = Submission("large", content, make_labels([ANA]), mime_type="text/plain")
        blobs = FsspecBlobs(settings.blob_store_url())
        submitted = submit(store, blobs, tenant_id, submission, default_labels=False, expected=None)
        wait_for_indexing(store, tenant_id)
        before, ms = _chunk_ids(store, submitted.document_id), []
        for number in range(CHANGES):
            gains, loses = (BEN, ANA) if number % 2 == 0 else (ANA, BEN)
            started = time.perf_counter()
            change_labels(store, tenant_id, submitted.document_id, make_labels([gains]), None)
            seen = [_sees(store, tenant_id, who, before) for who in (gains, loses)]
            ms.append((time.perf_counter() - started) * 1000)
            if seen != [len(before), 0]:
                raise SystemExit(f"after the change {gains} and {loses} see {seen} of {len(before)} chunks")
        if _chunk_ids(store, submitted.document_id) != before:
            raise SystemExit("the change of labels made new chunks")
    return {
        "label_change_chunks": len(before),
        "label_change_p50_ms": round(statistics.median(ms), 1),
        "label_change_max_ms": round(max(ms), 1),
        "label_change_embeddings": 0,  # its chunks are those of before
    }


def _chunk_ids(store: Store, document_id: UUID) -> set[int]:
    with writing(store) as conn:
        return {row[0] for row in conn.execute("SELECT id FROM chunks WHERE document_id = %s", (document_id,))}


def _sees(store: Store, tenant_id: UUID, who: str, ids: set[int]) -> int:
    with reading_tenant(store, tenant_id) as conn:
        scope = access.enter_scope(conn, Principal(tenant_id, who), store.scopes)
        found = chunks.visible_ids(conn, chunks.Scan(scope, live_profile(conn, tenant_id).id))
    return len(ids & set(found.tolist()))
