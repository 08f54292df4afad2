"""Texts and codes of what was proposed: from here on, content, under row-level security."""

from collections.abc import Sequence

from core.records import ChunkRow, FusedCandidate, Principal, SearchRequest
from retrieval.rerank import RERANK_POOL
from store import access, chunks, documents, tokens
from store.chunks import Scan
from store.documents import Span
from store.pool import Conn, Store, reading_tenant

READ_AHEAD = 4  # texts read for each passage asked for: neighbours and near-duplicates take no place


def read(
    conn: Conn, scan: Scan, fused: Sequence[FusedCandidate], request: SearchRequest, coded: bool
) -> tuple[dict[int, ChunkRow], dict[int, bytes]]:
    """Rows of those that are likely to be needed, and the others' when one of these has gone; with `coded`, the token
    codes of those that are reranked."""
    ids = [candidate.chunk_id for candidate in fused]
    first = ids[: depth(request)]
    rows = chunks.read_rows(conn, first)
    if len(rows) < len(first):
        rows |= chunks.read_rows(conn, ids[len(first) :])
    pool = [chunk_id for chunk_id in ids if chunk_id in rows][:RERANK_POOL]
    return rows, tokens.read(conn, scan.profile_id, pool) if coded else {}


def depth(request: SearchRequest) -> int:
    """How many of the best candidates are read at first."""
    return max(RERANK_POOL, request.top_k if request.as_ranked else READ_AHEAD * request.top_k)


def read_spans(store: Store, principal: Principal, spans: Sequence[Span]) -> dict[Span, str]:
    """Texts of merged passages, as the principal may read them now."""
    if not spans:
        return {}
    with reading_tenant(store, principal.tenant_id) as conn:
        access.enter_scope(conn, principal, store.scopes)
        return documents.read_spans(conn, spans)
