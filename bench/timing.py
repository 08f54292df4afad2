"""What a stopwatch tells a caller about what it may not see: Citadel promises equal bytes, not equal times.

    python -m bench.timing [--documents 2000] [--pairs 1000] [--json]

Each pair asks once about something hidden and once about something that is not there, in random order, over the API in
this process. `chance` is the probability that the hidden one took longer, ties counted half (Mann and Whitney's U over
n²): 0.5 tells nothing, 0 or 1 everything. Beside it stands the same for two askings about things that are not there,
which is what noise comes to.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from uuid import UUID, uuid4

import numpy as np
from fastapi.testclient import TestClient

from api.app import create_app
from api.service import Service
from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from models.fake_embedder import FakeEmbedder
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher
from store import access, keys
from store.blobs import FsspecBlobs
from store.pool import writing

Ask = Callable[[str], object]


class NoBroker:
    """Redis has no part in this."""

    def queue_length(self) -> int:
        """Nothing waits."""
        return 0


def make_world(bench: Bench, documents: int) -> tuple[str, list[str], list[str]]:
    """Half of the documents are the asker's. Returns its key, and the hidden ones' ids and words."""
    labels = [make_labels(["service:asker"]), make_labels(["user:somebody"])]
    chance = random.Random(1)
    texts = [f"secret{n} " + " ".join(f"word{chance.randrange(3000)}" for _ in range(40)) for n in range(documents)]
    with writing(bench.store) as conn:
        ids = access.intern_many(conn, bench.tenant_id, labels)
        key = keys.create_key(conn, bench.tenant_id, "asker", ("search",))
    placed = [ids[labels[n % 2]] for n in range(documents)]
    names = [f"d{n}" for n in range(documents)]
    fill(bench, Rows(names, placed, texts, unit_vectors(documents, FakeEmbedder.dimensions, 1)))
    with writing(bench.store) as conn:
        query = "SELECT id::text FROM documents WHERE tenant_id = %s AND label_set_id = %s ORDER BY external_id"
        rows = conn.execute(query, (bench.tenant_id, ids[labels[1]])).fetchall()
    return key, [row[0] for row in rows], [f"secret{n}" for n in range(1, documents, 2)]


def seconds(ask: Ask, thing: str) -> float:
    """Of one asking."""
    started = time.perf_counter()
    ask(thing)
    return time.perf_counter() - started


def compare(ask: Ask, hidden: Sequence[str], absent: Callable[[], str], pairs: int) -> dict[str, float]:
    """Times about hidden things, about absent ones, and about absent ones again."""
    chance = random.Random(2)
    times: dict[str, list[float]] = {"hidden": [], "absent": [], "again": []}
    for _ in range(pairs):
        things = {"hidden": chance.choice(hidden), "absent": absent(), "again": absent()}
        for name in chance.sample(list(things), 3):
            times[name].append(seconds(ask, things[name]))
    told = {f"{name}_ms": round(statistics.median(taken) * 1000, 3) for name, taken in times.items()}
    return told | {"chance": _chance(times["hidden"], times["absent"]),
                   "chance_of_noise": _chance(times["again"], times["absent"])}  # fmt: skip


def _chance(one: Sequence[float], other: Sequence[float]) -> float:
    first, second = np.array(one)[:, None], np.array(other)
    return round(float(np.mean((first > second) + (first == second) / 2)), 3)


def measure(bench: Bench, documents: int, pairs: int) -> dict[str, dict[str, float]]:
    """By kind of question."""
    key, hidden_ids, hidden_words = make_world(bench, documents)
    searcher = Searcher(bench.store, FakeEmbedder(), RankBm25Index(bench.store), deadline_s=60)
    service = Service(bench.store, FsspecBlobs("memory://timing"), searcher, NoBroker(), 2**20)
    try:
        with TestClient(create_app(lambda: nullcontext(service), 2**20)) as http:
            http.headers["Authorization"] = f"Bearer {key}"

            def search(mode: str) -> Ask:
                return lambda word: http.post("/v1/search", json={"query": f"{word} word7", "mode": mode})

            def no_word() -> str:
                return f"secret{documents + random.randrange(10**6)}"  # noqa: S311

            return {
                "GET /v1/documents/{id}": compare(
                    lambda i: http.get(f"/v1/documents/{UUID(i)}"), hidden_ids, lambda: str(uuid4()), pairs
                ),
                "POST /v1/search, lexical": compare(search("lexical"), hidden_words, no_word, pairs),
                "POST /v1/search, dense": compare(search("dense"), hidden_words, no_word, pairs),
            }
    finally:
        searcher.threads.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with server_url() as server, bench_database(server, "timing") as bench:
        told = measure(bench, options.documents, options.pairs)
    if options.json:
        print(json.dumps(told))
        return
    for kind, figures in told.items():
        print(f"{kind:26}", "  ".join(f"{name} {value:g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
