"""What access control costs: resolving a scope, cold and kept, and a search under it against the same without any.

    python -m bench.access [--documents 50000] [--label-sets 10,1000,50000] [--repeat 15] [--json]

For each number of label sets there is a database of its own with the same documents, all of which the asker may see;
what differs is under how many label sets they are. Times are medians in milliseconds of one run, beside their floors:
a bare round trip, and the bytes that name the scope.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence

import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql

from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from core.records import Mode, Principal, SearchRequest
from models.fake_embedder import FakeEmbedder
from retrieval.legs import POOL
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher, search
from store import access, changes, chunks, vectors
from store.chunks import Scan
from store.pool import reading_tenant, writing
from store.scopes import ScopeCache

ANA = "user:ana@acme.example"
GROUPS = 20
WORDS = [f"word{number}" for number in range(3000)]
# The dense leg and the reading of its text, with no policy and no condition on label sets.
BARE_NEAREST = """
    SELECT chunk_id, embedding <#> %(query)s AS distance FROM {} WHERE tenant_id = %(tenant)s
    ORDER BY (embedding <#> %(query)s) + 0, chunk_id LIMIT %(k)s
"""


def make_world(bench: Bench, documents: int, label_sets: int) -> None:
    """Documents under so many label sets in turn; each opens to one of the asker's groups and a tenth denies others."""
    labels = [
        make_labels([f"group:g{n % GROUPS}", f"user:u{n}@acme.example"], ["group:left"] if n % 10 == 0 else [])
        for n in range(label_sets)
    ]
    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=12)) for _ in range(documents)]
    with writing(bench.store) as conn:
        access.replace_groups(conn, bench.tenant_id, {f"group:g{n}": [ANA] for n in range(GROUPS)}, {})
        ids = access.intern_many(conn, bench.tenant_id, labels)
    placed = [ids[labels[n % label_sets]] for n in range(documents)]
    names = [f"d{n:07}" for n in range(documents)]
    fill(bench, Rows(names, placed, texts, unit_vectors(documents, FakeEmbedder.dimensions, 1)))


def median_ms(call: Callable[[], object], repeat: int) -> float:
    """Milliseconds of a call, the median after one that warms up."""
    call()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 3)


def resolving(bench: Bench, repeat: int) -> dict[str, object]:
    """A scope resolved cold and kept, in a transaction that is open already, and what names it."""
    who, kept = Principal(bench.tenant_id, ANA), ScopeCache()
    with reading_tenant(bench.store, bench.tenant_id) as conn:
        scope = access.enter_scope(conn, who, kept)
        cold = median_ms(lambda: access.enter_scope(conn, who), repeat)
        cached = median_ms(lambda: access.enter_scope(conn, who, kept), repeat * 5)
        trip = median_ms(lambda: conn.execute("SELECT 1").fetchone(), repeat * 5)
    return {
        "label_sets": len(scope.label_set_ids),
        "cold_ms": cold,
        "cached_ms": cached,
        "cached_to_cold": round(cached / cold, 4),
        "round_trip_ms": trip,
        "cached_round_trips": 1,
        "array_bytes": len(scope.array),
        "bits_bytes": len(scope.bits),
        "sent_as": "bits" if scope.dense else "array",
    }


def filtering(bench: Bench, repeat: int) -> dict[str, float]:
    """The dense leg and the reading of its text: under the policies with the scope kept, and as superuser without."""
    who, kept = Principal(bench.tenant_id, ANA), ScopeCache()
    query = unit_vectors(1, FakeEmbedder.dimensions, 2)[0]
    bare = sql.SQL(BARE_NEAREST).format(changes.vectors_table(bench.profile.id))
    values = {"query": HalfVector(query), "tenant": bench.tenant_id, "k": POOL}
    with psycopg.connect(bench.admin_url) as admin:
        register_vector(admin)

        def without() -> list[int]:
            with admin.transaction():
                ids = [chunk_id for chunk_id, _ in admin.execute(bare, values).fetchall()]
                return list(chunks.read_rows(admin, ids))

        def under() -> list[int]:
            with reading_tenant(bench.store, bench.tenant_id) as conn:
                scope = access.enter_scope(conn, who, kept)
                found = vectors.nearest(conn, Scan(scope, bench.profile.id), query, POOL)
                return list(chunks.read_rows(conn, [candidate.chunk_id for candidate in found]))

        assert sorted(without()) == sorted(under()) != []
        with_ms, without_ms = median_ms(under, repeat), median_ms(without, repeat)
    return {"with_filter_ms": with_ms, "without_ms": without_ms, "filter_ratio": round(with_ms / without_ms, 2)}


def searching(bench: Bench, repeat: int) -> dict[str, float]:
    """A whole search, by each leg alone; for the lexical leg with its table kept, as a second question finds it."""
    searcher = Searcher(bench.store, FakeEmbedder(), RankBm25Index(bench.store), deadline_s=120)
    who = Principal(bench.tenant_id, ANA)

    def ask(mode: Mode) -> Callable[[], None]:
        def once() -> None:
            answer = search(searcher, who, SearchRequest(" ".join(WORDS[:3]), mode=mode))
            assert answer.passages and not answer.degraded

        return once

    try:
        return {
            "search_dense_ms": median_ms(ask("dense"), repeat),
            "search_lexical_ms": median_ms(ask("lexical"), repeat),
        }
    finally:
        searcher.threads.shutdown()


def measure(documents: int, sizes: Sequence[int], repeat: int) -> dict[str, object]:
    """All figures by number of label sets, and the ratios between the largest and the smallest."""
    rows: list[dict[str, object]] = []
    with server_url() as server:
        for size in sizes:
            with bench_database(server, f"bench_{size}") as bench:
                make_world(bench, max(documents, size), size)
                rows.append({**resolving(bench, repeat), **filtering(bench, repeat), **searching(bench, repeat)})
    ratios = {
        f"{name}_ratio": round(float(str(rows[-1][f"{name}_ms"])) / float(str(rows[0][f"{name}_ms"])), 2)
        for name in ("search_dense", "search_lexical", "with_filter")
    }
    return {"documents": max(documents, *sizes), "cores": os.cpu_count(), "sizes": rows,
            f"at_{sizes[-1]}_against_{sizes[0]}": ratios}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--label-sets", default="10,1000,50000")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcome = measure(options.documents, [int(n) for n in options.label_sets.split(",")], options.repeat)
    if options.json:
        print(json.dumps(outcome))
        return
    sizes = outcome.pop("sizes")
    assert isinstance(sizes, list)
    for name in sizes[0]:
        print(f"{name:20}", *(f"{row[name]!s:>12}" for row in sizes))
    print("\n".join(f"{name:20} {value}" for name, value in outcome.items()))


if __name__ == "__main__":
    main()
