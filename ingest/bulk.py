"""Many documents into the index from one process, without jobs that wait: for a collection that is measured.

The steps and their functions are those of `ingest/pipeline.py`. What differs is only who does them: documents come in
batches, whose texts are embedded together, and a batch is submitted, claimed and published in one transaction. So no
worker ever sees one of its jobs, and whatever of the collection is in the index is there whole.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from uuid import UUID

import numpy as np

from core.records import Chunk, ParsedDocument, Profile, Submission
from ingest.chunk import ChunkBudget, chunk, embedded_text
from ingest.parsers.plain import parse_text
from ingest.pipeline import Pipeline
from ingest.prepare import prepare
from store import chunks, documents, jobs, sources
from store.pool import Store, writing

BATCH = 128  # documents; embedding wants many texts of one length at once

Prepared = tuple[Submission, ParsedDocument, tuple[Chunk, ...]]


def missing(store: Store, tenant_id: UUID, wanted: Sequence[Submission]) -> list[Submission]:
    """Those of the documents, all of one source, that the tenant does not hold yet."""
    with writing(store) as conn:
        held = {
            (source.name, external_id)
            for source in sources.all_of(conn, tenant_id)
            for external_id in sources.seen(conn, source.id)
        }
    return [document for document in wanted if (document.source, document.external_id) not in held]


def index_all(
    pipeline: Pipeline,
    tenant_id: UUID,
    profile: Profile,
    budget: ChunkBudget,
    wanted: Sequence[Submission],
    progress: Callable[[int], None] = lambda indexed: None,
) -> None:
    """Index the documents under this profile; `progress` is told how many there are by then.

    Raises Unparseable for the first document without text, SensitiveContent, and what the store raises.
    """
    queue, done = iter(wanted), 0
    while batch := list(islice(queue, BATCH)):
        prepared = [_prepare(pipeline, profile, budget, submission) for submission in batch]
        _publish(pipeline, tenant_id, profile, prepared)
        done += len(batch)
        progress(done)


def _prepare(pipeline: Pipeline, profile: Profile, budget: ChunkBudget, submission: Submission) -> Prepared:
    if submission.mime_type == "text/plain":  # nothing that a stranger could steer: no process of its own
        parsed = parse_text(submission.content)
    else:
        parsed = pipeline.parser.parse(submission.content, submission.filename, submission.mime_type)
    parsed = prepare(parsed, submission.title, submission.filename, pipeline.policy, pipeline.phone_region)
    embedder = pipeline.shelf.fitting(pipeline.embedder, profile)
    return submission, parsed, chunk(parsed, parsed.title, profile.chunker, budget, embedder)


def _publish(pipeline: Pipeline, tenant_id: UUID, profile: Profile, prepared: Sequence[Prepared]) -> None:
    texts = [embedded_text(parsed.text, piece) for _, parsed, pieces in prepared for piece in pieces]
    embedder = pipeline.shelf.fitting(pipeline.embedder, profile)
    vectors, codes = embedder.embed_documents_with_tokens(texts)
    vector, code = iter(vectors), iter(codes)
    keys = [pipeline.blobs.put(submission.content) for submission, _, _ in prepared]
    with writing(pipeline.store) as conn:
        for (submission, parsed, pieces), key in zip(prepared, keys, strict=True):
            own, own_codes = np.array(list(islice(vector, len(pieces))), np.float32), list(islice(code, len(pieces)))
            source = sources.ensure_api_source(conn, tenant_id, submission.source)
            documents.use_blob(conn, key)
            submitted = documents.submit(conn, tenant_id, source.id, submission, key)
            lease = submitted.job_id and jobs.claim(conn, submitted.job_id, pipeline.lease_s)
            if lease:  # else another process was quicker
                chunks.publish(conn, lease, profile.id, parsed, pieces, own, {}, own_codes)
