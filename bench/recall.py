"""An answer given again, against the same search found out anew, and what keeping costs the first time.

    python -m bench.recall [--chunks 20000] [--embedded 1000] [--questions 100] [--json PATH]

The world of `bench.search`, searched in this process as its person who sees all. `first`: no question before, none is
kept; `again`: the same question once more, whose vectors the process still has; `keeping`: a first time that looks into
Redis in vain and puts its ranking there; `recalled`: that question once more; `deaf`: a first time while Redis
accepts connections and says nothing. Each with its row in the audit.
"""

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.filtered_search import ready
from bench.lexical import cut, questions, texts
from bench.search import CHARS, DURABLE, STRIDE, embedded, make_world, percentiles, spread
from bench.world import PROFILE, Bench, bench_database, server_url
from core.records import Principal, SearchRequest
from embedded.place import erase_servers
from embedded.redis import start_redis
from models.embedder import Embedder, open_embedder
from models.minilm import NAME
from retrieval.bm25 import compile_loops
from retrieval.follower import Follower
from retrieval.recall import KeptAnswers
from retrieval.replica_index import ReplicaIndex
from retrieval.rerank import late_interaction
from retrieval.search import Searcher, search
from store.answers import RedisPlaces

BYTES = 64 * 2**20
BOX_S = 10.0  # so that a busy machine leaves no answer without its reranking


def asked(searcher: Searcher, who: Principal, some: Sequence[str], mark: str) -> tuple[list[float], int]:
    """Milliseconds of each question, and how many were given again."""
    times, recalled = [], 0
    for question in some:
        started = time.perf_counter()
        answer = search(searcher, who, SearchRequest(f"{question} {mark}"))
        times.append((time.perf_counter() - started) * 1000)
        recalled += answer.recalled
        assert answer.degraded == (), answer.activity
    return times, recalled


def measure_all(bench: Bench, embedder: Embedder, state: Path, some: Sequence[str]) -> dict[str, Any]:
    """Percentiles of each case."""
    compile_loops()
    index = ReplicaIndex(bench.store, state / "replicas")
    threadpool_limits(1, "blas")  # as `citadel serve` has it
    plain = Searcher(bench.store, embedder, index, late_interaction(BOX_S))
    who = Principal(bench.tenant_id, "user:all", via="service:bench")
    server = start_redis(state, durable=True)
    told: dict[str, Any] = {}
    try:
        places = RedisPlaces(server.url, BYTES, 300)
        keeping = replace(plain, answers=KeptAnswers(places, "bench"))
        asked(plain, who, some, "warm")
        for case, searcher, mark in (("first", plain, "a"), ("again", plain, "a"), ("keeping", keeping, "b"),
                                     ("recalled", keeping, "b")):  # fmt: skip
            times, recalled = asked(searcher, who, some, mark)
            told[case] = {**percentiles(times), "recalled": recalled}
        with socket.create_server(("127.0.0.1", 0), backlog=64) as deaf:
            away = RedisPlaces(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0", BYTES, 300)
            times, _ = asked(replace(plain, answers=KeptAnswers(away, "bench")), who, some, "c")
            told["deaf"] = {**percentiles(times), "max_ms": round(max(times), 1)}
        told["bytes"] = sum(len(value) for value in map(places.get, [bench.tenant_id] * places.places,
                                                        range(places.places)) if value) / len(some)  # fmt: skip
        places.close()
    finally:
        server.stop()
        index.close()
        plain.threads.shutdown(cancel_futures=True)
    return told


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="citadel-bench-recall-") as folder:
        state = Path(folder)
        state.chmod(0o711)
        embedder = open_embedder(NAME, state / "models")
        whole = (piece for text in texts(options.data) for piece in cut(text, CHARS, STRIDE))
        pieces = list(islice(whole, options.chunks))
        real, codes = embedded(embedder, pieces[: options.embedded])
        profile = replace(PROFILE, model=embedder.name, dimensions=embedder.dimensions, precision=embedder.precision)
        try:
            with server_url(DURABLE) as server, bench_database(server, "recall", profile) as bench:
                make_world(bench, pieces, spread(real, len(pieces)), codes)
                ready(bench, len(pieces))
                Follower(bench.store, state / "replicas").step()
                told = measure_all(bench, embedder, state, questions(options.data, options.questions))
        finally:
            erase_servers(state)
    ratio = {f"{case}_to_recalled": round(told[case]["p50_ms"] / told["recalled"]["p50_ms"], 2)
             for case in ("first", "again")}  # fmt: skip
    return {"chunks": len(pieces), "questions": options.questions, **told, **ratio,
            "keeping_to_first": round(told["keeping"]["p50_ms"] / told["first"]["p50_ms"], 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--embedded", type=int, default=1_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there: name the folder of test data with --data")
    told = measure(options)
    for case in ("first", "again", "keeping", "recalled", "deaf"):
        print(f"{case:9} {told[case]}")
    print({name: value for name, value in told.items() if not isinstance(value, dict)})
    if options.json:
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
