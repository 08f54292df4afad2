"""Hybrid search with late interaction, over HTTP: time, where it goes, the floor beside it, and how many at once.

    python -m bench.search [--chunks 100000] [--embedded 5000] [--questions 200] [--seconds 8] [--clients 1,4,16]
                           [--json PATH]

The chunks are spans of `../shared/data`, the questions those of its golden sets. The first `--embedded` chunks have
vectors and token codes of the default model; the others' vectors are those moved aside and their codes are of another
chunk, for time depends on neither. Postgres writes to the disk as in production (the audit's row of a search is on it
before the answer). `all` sees every chunk, `tenth` every tenth. No question is asked twice before it is timed. The
floor is what no search of this kind can leave out: embedding the question, an exact matrix product over what is
visible (memory, one thread), and the round trips of a search to Postgres.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from psycopg import sql
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.filtered_search import ready
from bench.lexical import cut, questions, texts
from bench.world import PASSWORDS, PROFILE, Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from models.embedder import Embedder, open_embedder
from models.minilm import NAME
from retrieval.follower import Follower
from store import access, keys
from store.migrate import role_url
from store.pool import writing

DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "1GB"}  # as docker-compose.yml has it
CHARS, STRIDE = 800, 300
LABEL_SETS = 1000
ASIDE = 0.3  # length of what is added to a unit vector
ROUND_TRIPS = 11  # of a search over HTTP, in turn, at least: the key 1, scope, look and texts 8, the audit 2
PEOPLE = {"all": 100, "tenth": 10}  # percent that is visible
BATCH = 256
Vectors = npt.NDArray[np.float32]


def embedded(embedder: Embedder, pieces: Sequence[str]) -> tuple[Vectors, list[bytes]]:
    """Vectors [len(pieces), dimensions] and token codes."""
    vectors, codes = [], list[bytes]()
    for start in range(0, len(pieces), BATCH):
        some, their_codes = embedder.embed_documents_with_tokens(pieces[start : start + BATCH])
        vectors.append(some)
        codes += their_codes
    return np.concatenate(vectors), codes


def spread(vectors: Vectors, count: int) -> Vectors:
    """`count` unit vectors: these, and then the same moved aside."""
    whole = vectors[np.arange(count) % len(vectors)]
    whole[len(vectors) :] += ASIDE * unit_vectors(count, vectors.shape[1], 1)[len(vectors) :]
    return np.asarray(whole / np.linalg.norm(whole, axis=1, keepdims=True), np.float32)


def make_world(bench: Bench, pieces: list[str], vectors: Vectors, codes: Sequence[bytes]) -> str:
    """Fill the database; returns a key that may act for the people."""
    wanted = [make_labels([f"group:g{n}"]) for n in range(LABEL_SETS)]
    members = {f"group:g{n}": [f"user:{who}" for who, percent in PEOPLE.items() if n < LABEL_SETS * percent / 100]
               for n in range(LABEL_SETS)}  # fmt: skip
    with writing(bench.store) as conn:
        ids = access.intern_many(conn, bench.tenant_id, wanted)
        access.replace_groups(conn, bench.tenant_id, members, {})
        key = keys.create_key(conn, bench.tenant_id, "agent", ("search", "act_for"))
    placed = np.random.default_rng(2).permutation(np.arange(len(pieces)) % LABEL_SETS)
    fill(bench, Rows([f"d{n:07}" for n in range(len(pieces))], [ids[wanted[n]] for n in placed], pieces, vectors))
    with writing(bench.store) as conn:
        conn.execute("SET LOCAL statement_timeout = 0")
        conn.execute("CREATE TEMP TABLE loaded (n serial, code bytea) ON COMMIT DROP")
        with conn.cursor() as cursor, cursor.copy("COPY loaded (code) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["bytea"])
            for code in codes:
                copy.write_row((code,))
        table = sql.Identifier(f"tokens_{bench.profile.id}")
        query = "INSERT INTO {} (chunk_id, document_id, code) SELECT c.id, c.document_id, s.code FROM chunks c " \
                "JOIN loaded s ON s.n = 1 + c.id %% %s"  # fmt: skip
        conn.execute(sql.SQL(query).format(table), (len(codes),))
    return key


@contextmanager
def api(bench: Bench, state: Path) -> Iterator[str]:
    """`citadel serve` in a process of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app, maintenance = (role_url(bench.admin_url, role, password) for role, password in PASSWORDS.items())
    own = {"CITADEL_STATE": str(state), "CITADEL_APP_DATABASE_URL": app, "CITADEL_REDIS_URL": "redis://127.0.0.1:1/0",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance, "CITADEL_TENANT": "bench", "CITADEL_PORT": str(port),
           "CITADEL_LEXICAL_FOLDER": str(state / "replicas"), "CITADEL_ANSWERS_S": "0"}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve"],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=(state / "api.log").open("wb"),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


class Client:
    """One connection that asks as one person."""

    def __init__(self, url: str, key: str, who: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "X-Citadel-Act-For": f"user:{who}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60)

    def ask(self, question: str) -> tuple[float, dict[str, Any], int]:
        """Milliseconds, the answer, its status."""
        started = time.perf_counter()
        answer = self._http.post("/v1/search", json={"query": question, "top_k": 8})
        return (time.perf_counter() - started) * 1000, answer.json(), answer.status_code


def alone(client: Client, asked: Sequence[str]) -> dict[str, Any]:
    """One client, one question after another."""
    times, stages, degraded = [], defaultdict[str, list[float]](list), 0
    for question in asked:
        ms, answer, status = client.ask(question)
        assert status == 200 and len(answer["passages"]) == 8, answer
        times.append(ms)
        degraded += bool(answer["degraded"])
        for stage in answer["activity"]:
            stages[stage["stage"]].append(stage["ms"])
    return {**percentiles(times), "degraded": degraded,
            "stages": {name: round(statistics.median(each), 2) for name, each in stages.items()}}  # fmt: skip


def together(url: str, key: str, asked: Sequence[str], clients: int, seconds: float) -> dict[str, Any]:
    """So many clients for so long, each with questions of its own order."""
    times: list[float] = []
    refused, until = [0] * clients, time.perf_counter() + seconds

    def work(number: int) -> None:
        client = Client(url, key, "all")
        order = np.random.default_rng(number).permutation(len(asked))
        while time.perf_counter() < until:
            for place in order:
                ms, _, status = client.ask(f"{asked[place]} {number}")  # nobody else's question: no kept vector
                times.append(ms) if status == 200 else refused.__setitem__(number, refused[number] + 1)
                if time.perf_counter() > until:
                    break

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"clients": clients, "a_second": round(len(times) / seconds, 1), **percentiles(times),
            "refused": sum(refused)}  # fmt: skip


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    return {"p50_ms": round(float(np.percentile(times, 50)), 2), "p95_ms": round(float(np.percentile(times, 95)), 2)}


def floor(bench: Bench, embedder: Embedder, vectors: Vectors, asked: Sequence[str]) -> dict[str, float]:
    """Medians in milliseconds of what cannot be left out."""

    def median(call: Any) -> float:
        times = []
        for question in asked:
            started = time.perf_counter()
            call(question)
            times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times)

    query = embedder.embed_queries(asked[:1])[0]
    with writing(bench.store) as conn, threadpool_limits(1):
        parts = {
            "embedding": median(lambda question: embedder.embed_queries([question])),
            "exact": median(lambda _: np.argpartition(vectors @ query, -100)),
            "round_trips": ROUND_TRIPS * median(lambda _: conn.execute("SELECT 1").fetchone()),
        }
    return {name: round(ms, 2) for name, ms in {**parts, "sum": sum(parts.values())}.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="citadel-bench-search-") as folder:
        state = Path(folder)
        embedder = open_embedder(NAME, state / "models")
        whole = (piece for text in texts(options.data) for piece in cut(text, CHARS, STRIDE))
        pieces = list(islice(whole, options.chunks))
        real, codes = embedded(embedder, pieces[: options.embedded])
        vectors = spread(real, len(pieces))
        profile = replace(PROFILE, model=embedder.name, dimensions=embedder.dimensions, precision=embedder.precision)
        with server_url(DURABLE) as server, bench_database(server, "search", profile) as bench:
            key = make_world(bench, pieces, vectors, codes)
            told: dict[str, Any] = {"chunks": len(pieces), "cores": os.cpu_count(), **ready(bench, len(pieces))}
            Follower(bench.store, state / "replicas").step()
            asked = questions(options.data, 2 * options.questions)
            warm, timed = asked[: len(asked) // 2], asked[len(asked) // 2 :]
            with api(bench, state) as url:
                for who in PEOPLE:
                    client = Client(url, key, who)
                    alone(client, [f"{who} {question}" for question in warm])
                    told[who] = alone(client, [f"{question} {who}" for question in timed])
                told["floor"] = floor(bench, embedder, vectors, timed)
                told["together"] = [together(url, key, timed, count, options.seconds) for count in options.clients]
    told["to_floor"] = round(told["all"]["p50_ms"] / told["floor"]["sum"], 2)
    return told


def table(told: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"{told['chunks']:,} chunks, {told['cores']} cores; floor {told['floor']}"
    for who in PEOPLE:
        row = told[who]
        yield f"sees {who:6} p50 {row['p50_ms']:7.2f} ms, p95 {row['p95_ms']:7.2f} ms, {row['stages']}"
    yield f"all: {told['to_floor']} × the floor"
    for row in told["together"]:
        yield (f"{row['clients']:3} clients: {row['a_second']:6.1f} searches/s, p50 {row['p50_ms']:7.2f} ms, "
               f"p95 {row['p95_ms']:7.2f} ms, {row['refused']} refused")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--embedded", type=int, default=5_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=lambda value: [int(n) for n in value.split(",")], default=[1, 4, 16])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there: name the folder of test data with --data")
    told = measure(options)
    print("\n".join(table(told)))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
