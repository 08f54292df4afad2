"""Token codes for chunks that were indexed before there were any: from their own text, a batch at a time.

A chunk that has none keeps its fused score in a search. What is done is done: run again, it goes on with the rest.
"""

from collections.abc import Callable

from core.errors import Invalid
from core.records import Profile
from models.embedder import Embedder, check_model
from store import tokens
from store.pool import Store, writing

BATCH = 256  # chunks; embedding wants many texts of one length at once


def fill_codes(
    store: Store, embedder: Embedder, profile: Profile, progress: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """Give every current chunk of the profile a code that has none; returns how many. `progress` is told how many of
    how many are done. Raises ModelMismatch, and Invalid for a model without token vectors."""
    check_model(embedder, profile)
    if not embedder.token_bits:
        raise Invalid(f"the model {embedder.name} gives no token vectors: there is nothing to fill in")
    with writing(store) as conn:
        total = tokens.count_missing(conn, profile.id)
    done, last = 0, 0
    while True:
        with writing(store) as conn:
            batch = tokens.missing(conn, profile.id, last, BATCH)
        if not batch:
            return done
        texts = [f"{prefix}\n{text}".lstrip() for _, prefix, text in batch]
        _, codes = embedder.embed_documents_with_tokens(texts)
        last = batch[-1][0]
        with writing(store) as conn:
            tokens.fill(conn, profile.id, {chunk_id: code for (chunk_id, _, _), code in zip(batch, codes, strict=True)})
        done += len(batch)
        progress(done, max(total, done))
