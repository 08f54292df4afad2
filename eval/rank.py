"""Ranks again, under any setting, what kept legs proposed: the search's own fusion and blend, and nothing asked twice.

Where a chunk lies and what late interaction makes of it is read once, as the question's asker, under row-level
security; what that one may not see now is not ranked. Chunks are ranked as they are, without merging neighbours.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from core.records import FusedCandidate, Place, Principal
from eval.asking import late_scores
from eval.compare import Rankings
from eval.golden import GoldenQuery, GoldenSet
from eval.kept import Kept, KeptScores
from eval.tune import Way
from models.embedder import Embedder
from models.reranker import Reranker
from retrieval.fuse import fuse
from retrieval.legs import POOL
from retrieval.rerank import blend
from store import access, chunks
from store.pool import Store, reading_tenant
from store.profiles import live_profile

BATCH = 25  # questions whose codes are in memory at once

Lexical = Callable[[Way, Sequence[GoldenQuery]], Kept]  # the lexical leg under the setting's k1 and b


class Ranker:
    """One index's rankings. `late`: a reranker that reads codes; None: there is no reranking."""

    def __init__(
        self, store: Store, tenant_id: UUID, embedder: Embedder, late: Reranker | None, golden: GoldenSet,
        legs: tuple[Kept, Lexical], cutoff: int | None,
    ) -> None:  # fmt: skip
        self._store, self._tenant_id, self._embedder = store, tenant_id, embedder
        self._queries, (self._dense, self._lexical), self._cutoff = golden.queries, legs, cutoff
        self._late = KeptScores(self._dense, late) if late else None
        self._places: dict[str, dict[int, Place | None]] = {}  # by asker; None: not to be seen
        self._scores: dict[tuple[str, int], float | None] = {}  # by question and chunk

    def __call__(self, way: Way, ids: frozenset[str]) -> Rankings:
        """The passages of each of these questions, best first; within `cutoff`, where there is one."""
        queries = [query for query in self._queries if query.id in ids]
        lexical = self._lexical(way, queries)
        fused = {query.id: self._fused(way, query, lexical) for query in queries}
        for subject in {query.subject for query in queries}:
            self._locate(subject, {c.chunk_id for q in queries if q.subject == subject for c in fused[q.id]})
        readable = {q.id: [c for c in fused[q.id] if self._places[q.subject][c.chunk_id]] for q in queries}
        self._score(way, queries, readable)
        return {query.id: list(self._ranked(way, query, readable[query.id])) for query in queries}

    def _fused(self, way: Way, query: GoldenQuery, lexical: Kept) -> list[FusedCandidate]:
        legs = (("dense", self._dense), ("lexical", lexical))
        near, worded = (kept.leg(leg, query.subject, query.query)[: way.pool] for leg, kept in legs)
        return fuse(way.fusion, near, worded)[:POOL]

    def _ranked(self, way: Way, query: GoldenQuery, readable: list[FusedCandidate]) -> Iterable[Place]:
        if self._late:
            scores = [self._scores[query.id, c.chunk_id] for c in readable[: way.late_pool]]
            readable = blend(readable, scores, way.late_weight)
        found = (self._places[query.subject][c.chunk_id] for c in readable[: self._cutoff])
        return (place for place in found if place is not None)

    def _locate(self, subject: str, chunk_ids: set[int]) -> None:
        known = self._places.setdefault(subject, {})
        if missing := sorted(chunk_ids - known.keys()):
            with reading_tenant(self._store, self._tenant_id) as conn:
                access.enter_scope(conn, Principal(self._tenant_id, subject))
                found = chunks.places_of(conn, missing)
            known.update((chunk_id, found.get(chunk_id)) for chunk_id in missing)

    def _score(self, way: Way, queries: Sequence[GoldenQuery], readable: Mapping[str, list[FusedCandidate]]) -> None:
        """What late interaction has not scored yet of what it looks at under this setting."""
        if self._late is None:
            return
        threadpool_limits(1, "blas")  # as in a search
        missing = {
            query: wanted
            for query in queries
            if (
                wanted := [c for c in readable[query.id][: way.late_pool] if (query.id, c.chunk_id) not in self._scores]
            )
        }
        for subject in {query.subject for query in missing}:
            asked = [query for query in missing if query.subject == subject]
            for start in range(0, len(asked), BATCH):
                with reading_tenant(self._store, self._tenant_id) as conn:
                    access.enter_scope(conn, Principal(self._tenant_id, subject))
                    some = {q: [c.chunk_id for c in missing[q]] for q in asked[start : start + BATCH]}
                    self._keep(some, late_scores(conn, live_profile(conn, self._tenant_id).id, self._embedder,
                                                 self._late, some))  # fmt: skip

    def _keep(self, some: Mapping[GoldenQuery, list[int]], scores: Mapping[GoldenQuery, list[float | None]]) -> None:
        for query, pool in some.items():
            self._scores.update(((query.id, i), score) for i, score in zip(pool, scores[query], strict=True))
