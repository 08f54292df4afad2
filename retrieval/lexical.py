"""The lexical leg: true BM25, over what the caller can see and nothing else.

`RankBm25Index` is the reference engine: exact, in memory, for small corpora. Its statistics (N, document frequency,
average length) are those of the visible chunks, so that a hidden document moves no score.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

from core.records import Candidate
from retrieval.analyze import index_terms, query_terms
from store import chunks
from store.chunks import Scan
from store.pool import Conn, Store, View, reading

CACHED_SCOPES = 16  # BM25 tables held, one for each distinct set of visible chunks
CACHED_CHUNKS = 200_000  # term lists held
KEEP_S = 240.0  # a table that no search saw to be its caller's own for so long goes, and its terms with it
SWEEP_S = 60.0  # between looks for such


class Sight(Protocol):
    """What a search sees of an index on this host, as of its own snapshot; it needs no connection any more."""

    @property
    def visible(self) -> int: ...
    def has_vectors(self, dimensions: int) -> bool: ...
    def by_words(self, questions: Sequence[str], k: int) -> list[list[Candidate]]: ...
    def nearest(self, queries: Sequence[NDArray[np.float32]], k: int) -> list[list[Candidate]]: ...


class LexicalIndex(Protocol):
    """Proposes chunks by their words. `k` best first; only chunks that hold at least one of the query's terms.

    `look`: what both legs need of this transaction, so that they ask Postgres nothing more; None where the index keeps
    nothing on this host. `forget` lets go of erased chunks in this process at once; what other processes hold, each
    bounds on its own. `reaches`: a search that starts now has the tenant's change at `seq`. `lag_s`: seconds since the
    first of the tenant's changes that a replica does not have; nan when there is none to ask. `state`: `ok`, or what is
    wrong on this host, in words that tell nothing of any tenant.
    """

    def look(self, conn: Conn, scan: Scan) -> Sight | None: ...
    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]: ...
    def forget(self, chunk_ids: Iterable[int]) -> None: ...
    def reaches(self, conn: Conn, tenant_id: UUID) -> bool: ...
    def lag_s(self, conn: Conn, tenant_id: UUID) -> float: ...
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Bm25:
    """How soon a term's repeats count no more, and how much a long text is held against it."""

    k1: float = 1.5
    b: float = 0.75


class _Bm25(BM25Okapi):  # type: ignore[misc]
    """BM25 with Lucene's idf, log(1 + (N - df + 0.5) / (df + 0.5)): Okapi's own turns negative above N/2."""

    def _calc_idf(self, frequencies: dict[str, int]) -> None:
        count = self.corpus_size
        self.idf = {term: math.log(1 + (count - df + 0.5) / (df + 0.5)) for term, df in frequencies.items()}


@dataclass(slots=True)
class _Table:
    """A table of BM25, the chunks it is made of, and when a search last found exactly these to be visible."""

    bm25: _Bm25
    ids: frozenset[int]
    seen_at: float


class RankBm25Index:
    """BM25 by `rank-bm25`; one table for each set of visible chunks, keyed by their very ids.

    The key is exact: a chunk's text never changes under its id, so equal ids mean equal tables, and a caller whose
    sight differs by one chunk gets a table of its own. No search that starts after a chunk was erased finds a table
    with it, so at most `keep_s + sweep_s` after the last that began before, its terms are gone from this process.
    """

    def __init__(
        self, store: Store, keep_s: float = KEEP_S, sweep_s: float = SWEEP_S, bm25: Bm25 | None = None
    ) -> None:
        self._store, self._bm25 = store, bm25 or Bm25()
        self._keep_s, self._sweep_s = keep_s, sweep_s
        self._sweeper: threading.Timer | None = None
        self._lock = threading.Lock()
        self._terms: OrderedDict[int, list[str]] = OrderedDict()
        self._tables: OrderedDict[bytes, _Table] = OrderedDict()

    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]:
        """The k visible chunks of largest BM25. Raises StoreUnavailable."""
        wanted = [term for term, times in query_terms(query).items() for _ in range(times)]
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

    def look(self, conn: Conn, scan: Scan) -> None:
        """Nothing: it reads Postgres itself."""

    def forget(self, chunk_ids: Iterable[int]) -> None:
        """Drop these chunks' terms, and every table that counts them."""
        gone = frozenset(chunk_ids)
        with self._lock:
            self._drop([key for key, table in self._tables.items() if table.ids & gone], gone)

    def reaches(self, conn: Conn, tenant_id: UUID) -> bool:
        """Always: it reads Postgres itself."""
        return True

    def lag_s(self, conn: Conn, tenant_id: UUID) -> float:
        """None, for the same reason."""
        return 0.0

    def state(self) -> str:
        """`ok`: there is nothing on this host that could be missing."""
        return "ok"

    def _table(self, conn: Conn, ids: NDArray[np.int64]) -> _Bm25:
        key = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        with self._lock:
            if key not in self._tables:
                self._tables[key] = _Table(self._made(conn, ids), frozenset(ids.tolist()), 0.0)
                _trim(self._tables, CACHED_SCOPES)
                self._sweep_later()
            self._tables.move_to_end(key)
            self._tables[key].seen_at = time.monotonic()
            return self._tables[key].bm25

    def _made(self, conn: Conn, ids: NDArray[np.int64]) -> _Bm25:
        return _Bm25(self._terms_of(conn, ids), k1=self._bm25.k1, b=self._bm25.b)

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = threading.Timer(self._sweep_s, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            least = time.monotonic() - self._keep_s
            old = [key for key, table in self._tables.items() if table.seen_at < least]
            kept = [table.ids for key, table in self._tables.items() if key not in old]
            self._drop(old, self._terms.keys() - frozenset().union(*kept))
            self._sweeper = None
            if self._tables:
                self._sweep_later()

    def _drop(self, keys: Iterable[bytes], chunk_ids: Iterable[int]) -> None:
        for key in keys:
            del self._tables[key]
        for chunk_id in chunk_ids:
            self._terms.pop(chunk_id, None)

    def _terms_of(self, conn: Conn, ids: NDArray[np.int64]) -> list[list[str]]:
        missing = [int(i) for i in ids if int(i) not in self._terms]
        for chunk_id, prefix, text, language in chunks.indexed_texts(conn, missing):
            self._terms[chunk_id] = index_terms(prefix, text, language)
        found = [self._terms.get(int(i), []) for i in ids]
        _trim(self._terms, CACHED_CHUNKS)
        return found


def _trim(cache: OrderedDict, size: int) -> None:  # type: ignore[type-arg]
    while len(cache) > size:
        cache.popitem(last=False)
