"""What one search sees of this host's replica, as of its own snapshot. Both legs are answered from it, by the
processor alone: nothing more is asked of Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.records import Candidate
from retrieval.analyze import query_terms
from retrieval.bm25 import Field, Seen, best, field_of, seen
from retrieval.lexical import Bm25
from retrieval.matrix import Matrix, Place, Threads, nearest
from retrieval.segment import build, entries_of, hasher
from store.following import ChunkText


@dataclass(frozen=True, slots=True)
class Fresh:
    """Visible chunks that the replica does not have yet, as the search read them, and their vectors in that order."""

    texts: Sequence[ChunkText] = ()
    matrix: Matrix | None = None


@dataclass(frozen=True, slots=True)
class ReplicaSight:
    """A part's matrix is None where its vectors are not kept on this host."""

    parts: Sequence[tuple[Seen, Matrix | None]]
    whole: Field | None  # of the parts; None: to be made, for they are this search's own
    fresh: Fresh
    hash_key: bytes
    bm25: Bm25
    threads: Threads

    @property
    def visible(self) -> int:
        """Chunks that are seen."""
        return sum(part.count for part, _ in self.parts) + len(self.fresh.texts)

    def has_vectors(self, dimensions: int) -> bool:
        """Whether all that is seen can be compared with a vector of so many dimensions."""
        matrices = [matrix for _, matrix in self.parts] + ([self.fresh.matrix] if self.fresh.texts else [])
        return all(matrix is not None and matrix.dimensions == dimensions for matrix in matrices)

    def by_words(self, questions: Sequence[str], k: int) -> list[list[Candidate]]:
        """For each question the k chunks of largest BM25."""
        hash_of, field = hasher(self.hash_key), self._field()
        return [best(field, {hash_of(term): n for term, n in query_terms(q).items()}, k) for q in questions]

    def nearest(self, queries: Sequence[NDArray[np.float32]], k: int) -> list[list[Candidate]]:
        """For each query [dimensions] the k chunks of largest inner product."""
        places = [Place(m, part.rows, part.segment.chunk_ids) for part, m in self.parts if m is not None and part.count]
        if self.fresh.matrix is not None:
            ids = np.array([chunk_id for chunk_id, *_ in self.fresh.texts], np.int64)
            places.append(Place(self.fresh.matrix, np.ones(len(ids), bool), ids))
        return [nearest(places, query, k, self.threads) for query in queries]

    def _field(self) -> Field:
        if self.whole is not None:
            return self.whole
        parts = [part for part, _ in self.parts]
        if self.fresh.texts:
            segment = build(entries_of(self.fresh.texts), hasher(self.hash_key))
            parts.append(seen(segment, np.ones(segment.documents.shape[1], bool)))
        return field_of(parts, self.bm25)
