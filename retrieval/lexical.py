"""The lexical leg: true BM25, over what the caller can see and nothing else.

`RankBm25Index` is the reference engine: exact, in memory, for small corpora. Its statistics (N, document frequency,
average length) are those of the visible chunks, so that a hidden document moves no score.
"""

import hashlib
import math
import threading
from collections import OrderedDict
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

from core.records import Candidate
from retrieval.analyze import terms
from store import chunks
from store.chunks import Scan
from store.pool import Conn, Store, View, reading

CACHED_SCOPES = 16  # BM25 tables held, one for each distinct set of visible chunks
CACHED_CHUNKS = 200_000  # term lists held


class LexicalIndex(Protocol):
    """Proposes chunks by their words. `k` best first; only chunks that hold at least one of the query's terms."""

    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]: ...


class _Bm25(BM25Okapi):  # type: ignore[misc]
    """BM25 with Lucene's idf, log(1 + (N - df + 0.5) / (df + 0.5)): Okapi's own turns negative above N/2."""

    def _calc_idf(self, frequencies: dict[str, int]) -> None:
        count = self.corpus_size
        self.idf = {term: math.log(1 + (count - df + 0.5) / (df + 0.5)) for term, df in frequencies.items()}


class RankBm25Index:
    """BM25 by `rank-bm25`; one table for each set of visible chunks, keyed by their very ids.

    The key is exact: a chunk's text never changes under its id, so equal ids mean equal tables, and a caller whose
    sight differs by one chunk gets a table of its own.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._terms: OrderedDict[int, list[str]] = OrderedDict()
        self._tables: OrderedDict[bytes, _Bm25] = OrderedDict()

    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]:
        """The k visible chunks of largest BM25. Raises StoreUnavailable."""
        wanted = terms(query)
        with reading(self._store, view, timeout_s) as conn:
            ids = chunks.visible_ids(conn, scan)
            if not wanted or not len(ids):
                return []
            table = self._table(conn, ids)
        if not table.avgdl:  # no chunk holds a word, and the formula divides by the average length
            return []
        scores = np.asarray(table.get_scores(wanted))
        best = np.lexsort((ids, -scores))[:k]
        return [Candidate(int(ids[i]), float(scores[i])) for i in best if scores[i] > 0]

    def _table(self, conn: Conn, ids: NDArray[np.int64]) -> _Bm25:
        key = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        with self._lock:
            if key not in self._tables:
                self._tables[key] = _Bm25(self._terms_of(conn, ids))
                _trim(self._tables, CACHED_SCOPES)
            self._tables.move_to_end(key)
            return self._tables[key]

    def _terms_of(self, conn: Conn, ids: NDArray[np.int64]) -> list[list[str]]:
        missing = [int(i) for i in ids if int(i) not in self._terms]
        for chunk_id, prefix, text in chunks.indexed_texts(conn, missing):
            self._terms[chunk_id] = terms(f"{prefix}\n{text}")
        found = [self._terms.get(int(i), []) for i in ids]
        _trim(self._terms, CACHED_CHUNKS)
        return found


def _trim(cache: OrderedDict, size: int) -> None:  # type: ignore[type-arg]
    while len(cache) > size:
        cache.popitem(last=False)
