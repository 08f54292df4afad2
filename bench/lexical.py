"""The lexical leg beside what one would use instead: rank-bm25, and ts_rank_cd over a GIN index.

    python -m bench.lexical [--data ../shared/data] [--chunks 165000] [--chars 800] [--stride 200] [--questions 200]
                            [--slow 5] [--checked 40] [--json PATH]

Chunks are spans of real texts, of the length that ours have; there are 36 million characters of them, so for 165,000
chunks the spans overlap: one begins every `stride` characters. The questions are those of golden sets in the same
folder. Each chunk is a document under one of 1,000 label sets, of which people see 100, 50, 10 and 1 %. The top 10 of
each checked question is compared with BM25 by a dictionary and a loop, which shares nothing with the engine but the
list of terms.
"""

import argparse
import csv
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pypdfium2
from rank_bm25 import BM25Okapi

from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from core.records import Candidate, Principal
from models.fake_embedder import FakeEmbedder
from retrieval.analyze import index_terms, query_terms
from retrieval.bm25 import best, compile_loops
from retrieval.follower import Follower
from retrieval.lexical import Bm25
from retrieval.replica import folder_of, read
from retrieval.replica_index import ReplicaIndex
from retrieval.segment import hasher
from store import access, following
from store.chunks import Scan
from store.pool import View, export_snapshot, reading, reading_tenant, writing

TEXTS = {".md", ".txt", ".eml", ".csv", ".html", ".xml", ".json"}
LABEL_SETS = 1000
VISIBLE = (100, 50, 10, 1)  # percent
TOP = 10
POOL = 200  # what a search asks of the leg
SAME = 1e-9  # of a score: the order of a sum
TS_TABLE = """
    CREATE TABLE plain_text AS
        SELECT c.id, to_tsvector('english', c.text) AS words FROM chunks c;
    CREATE INDEX ON plain_text USING gin (words); VACUUM ANALYZE plain_text
"""
TS_QUERY = """
    SELECT id FROM plain_text, (SELECT replace(plainto_tsquery('english', %s)::text, '&', '|')::tsquery) AS q (query)
    WHERE words @@ query ORDER BY ts_rank_cd(words, query) DESC LIMIT 10
"""


def texts(data: Path) -> Iterator[str]:
    """Every text there is."""
    for name in ("scifact", "cranfield"):
        for line in (data / "retrieval" / name / "corpus.jsonl").read_text().splitlines():
            document = json.loads(line)
            yield f"{document.get('title') or ''}\n{document['text']}"
    for path in sorted((data / "retrieval" / "sec-10q").rglob("*.pdf")):
        with pypdfium2.PdfDocument(path) as pdf:
            yield "\n".join(page.get_textpage().get_text_range() for page in pdf)
    for folder in ("retrieval/chroma-chunking/corpora", "enterprise", "documents"):
        for path in sorted((data / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXTS:
                yield path.read_text(errors="replace").replace("\0", " ")


def questions(data: Path, count: int) -> list[str]:
    """Questions of the golden sets, in a random order that is the same at each run."""
    retrieval = data / "retrieval"
    with (retrieval / "chroma-chunking" / "questions.csv").open(encoding="utf-8-sig") as file:
        found = [row["question"] for row in csv.DictReader(file)]
    with (retrieval / "sec-10q" / "questions.csv").open(encoding="utf-8-sig") as file:
        found += [row["Question"] for row in csv.DictReader(file)]
    for line in (retrieval / "cranfield" / "queries.jsonl").read_text().splitlines():
        found.append(json.loads(line)["text"])
    random.Random(1).shuffle(found)
    return found[:count]


def cut(text: str, chars: int, stride: int) -> Iterator[str]:
    """Spans of up to `chars` characters that begin `stride` apart."""
    for start in range(0, max(1, len(text) - chars + stride), stride):
        if text[start : start + chars].strip():
            yield text[start : start + chars]


class PlainBm25:
    """BM25 by a dictionary of postings and a loop, over any set of rows."""

    def __init__(self, corpus: Sequence[Sequence[str]], bm25: Bm25) -> None:
        self._bm25, self._lengths = bm25, [len(terms) for terms in corpus]
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, terms in enumerate(corpus):
            for term, times in Counter(terms).items():
                self._postings[term].append((row, times))

    def scores(self, wanted: dict[str, int], rows: frozenset[int]) -> dict[int, float]:
        """The score of each of the rows that has a term."""
        average = sum(self._lengths[row] for row in rows) / len(rows)
        found: dict[int, float] = defaultdict(float)
        for term, times in wanted.items():
            held = [(row, f) for row, f in self._postings.get(term, ()) if row in rows]
            idf = math.log(1 + (len(rows) - len(held) + 0.5) / (len(held) + 0.5))
            for row, f in held:
                norm = self._bm25.k1 * (1 - self._bm25.b + self._bm25.b * self._lengths[row] / average)
                found[row] += times * idf * f * (self._bm25.k1 + 1) / (f + norm)
        return found


@dataclass(frozen=True)
class World:
    """A filled database, its replica, and who sees what of it."""

    bench: Bench
    index: ReplicaIndex
    root: Path
    ids: list[int]  # chunk ids by row
    rows: dict[int, frozenset[int]]  # by percent visible
    corpus: list[list[str]]

    @contextmanager
    def sight(self, percent: int) -> Iterator[tuple[View, Scan]]:
        """One person's view, in a snapshot that is open."""
        with reading_tenant(self.bench.store, self.bench.tenant_id) as conn:
            principal = Principal(self.bench.tenant_id, f"user:p{percent}")
            scope = access.enter_scope(conn, principal, self.bench.store.scopes)
            yield View(scope, export_snapshot(conn)), Scan(scope, self.bench.profile.id)


def made(bench: Bench, pieces: list[str], root: Path) -> tuple[World, dict[str, float]]:
    """Fill the database, follow it, and note what that took."""
    chance = random.Random(2)
    with writing(bench.store) as conn:
        wanted = [make_labels([f"group:g{n}", "group:all"]) for n in range(LABEL_SETS)]
        sets = [access.intern_labels(conn, bench.tenant_id, labels) for labels in wanted]
        members = {
            f"group:g{n}": [f"user:p{p}" for p in VISIBLE if n < LABEL_SETS * p / 100] for n in range(LABEL_SETS)
        }
        access.replace_groups(conn, bench.tenant_id, members | {"group:all": ["user:p100"]}, {})
    of_row = [chance.randrange(LABEL_SETS) for _ in pieces]
    rows = Rows([f"d{n:07}" for n in range(len(pieces))], [sets[n] for n in of_row], pieces,
                unit_vectors(len(pieces), FakeEmbedder.dimensions, 3))  # fmt: skip
    fill(bench, rows)
    told = {}
    told["build_s"] = _seconds(Follower(bench.store, root).step)
    folder = folder_of(root, bench.tenant_id, bench.profile.id)
    told["bytes"] = sum(path.stat().st_size for path in folder.iterdir())
    told["load_s"] = _seconds(lambda: read(folder))
    with writing(bench.store) as conn:
        found = conn.execute("SELECT d.external_id, c.id FROM chunks c JOIN documents d ON d.id = c.document_id")
        by_name = dict(found.fetchall())
    ids = [by_name[name] for name in rows.names]
    seen = {p: frozenset(row for row, n in enumerate(of_row) if n < LABEL_SETS * p / 100) for p in VISIBLE}
    corpus = [index_terms("", piece) for piece in pieces]
    return World(bench, ReplicaIndex(bench.store, root), root, ids, seen, corpus), told


def leg(world: World, asked: Sequence[str], percent: int, k: int) -> tuple[list[float], list[list[Candidate]]]:
    """Milliseconds and answers of the whole leg, as a search calls it: its own transaction, what changed, scores."""
    times, answers = [], []
    with world.sight(percent) as (view, scan):
        world.index.search(asked[0], view, scan, k, 60)
        for question in asked:
            started = time.perf_counter()
            answers.append(world.index.search(question, view, scan, k, 60))
            times.append((time.perf_counter() - started) * 1000)
    return times, answers


def scoring(world: World, asked: Sequence[str], percent: int) -> list[float]:
    """Milliseconds of the scoring alone."""
    with world.sight(percent) as (view, scan), reading(world.bench.store, view) as conn:
        held = world.index._newest((scan.scope.tenant_id, scan.profile_id))
        sight = world.index._looked(conn, scan, held)
    hash_of, field = hasher(sight.hash_key), sight._field()
    return [_ms(lambda q=q: best(field, {hash_of(t): n for t, n in query_terms(q).items()}, TOP)) for q in asked]


def round_trips(world: World, count: int) -> list[float]:
    """Milliseconds of what the leg asks of Postgres: its floor."""
    with world.sight(100) as (view, scan):
        held = world.index._newest((scan.scope.tenant_id, scan.profile_id))[0]

        def ask() -> None:
            with reading(world.bench.store, view, 60) as conn:
                following.changed_since(conn, scan.scope.tenant_id, held.stored.replica.position)

        return [_ms(ask) for _ in range(count)]


def wrong(world: World, plain: PlainBm25, asked: Sequence[str], percent: int) -> int:
    """How many of the questions have a top 10 that is not exact BM25's, ties aside."""
    _, answers = leg(world, asked, percent, TOP)
    row_of = {chunk_id: row for row, chunk_id in enumerate(world.ids)}
    return sum(
        not _same(answer, plain.scores(query_terms(question), world.rows[percent]), row_of)
        for question, answer in zip(asked, answers, strict=True)
    )


def _same(answer: Sequence[Candidate], exact: dict[int, float], row_of: dict[int, int]) -> bool:
    due = sorted(exact.values(), reverse=True)[:TOP]
    given = [(exact.get(row_of[c.chunk_id], 0.0), c.score) for c in answer]
    return len(due) == len(given) and all(
        abs(by_row - d) <= SAME * d and abs(told - d) <= SAME * d for (by_row, told), d in zip(given, due, strict=True)
    )


def rank_bm25(world: World, asked: Sequence[str]) -> list[float]:
    """Milliseconds of rank-bm25's top 10."""
    engine = BM25Okapi(world.corpus)

    def ask(question: str) -> None:
        scores = engine.get_scores([term for term, n in query_terms(question).items() for _ in range(n)])
        np.argsort(-scores)[:TOP]

    return [_ms(lambda q=q: ask(q)) for q in asked]


def ts_rank_cd(world: World, asked: Sequence[str]) -> list[float]:
    """Milliseconds of Postgres' own ranking: any of the words, by a GIN index."""
    with psycopg.connect(world.bench.admin_url, autocommit=True) as conn:
        for statement in TS_TABLE.split(";"):
            conn.execute(statement.encode())
        return [_ms(lambda q=q: conn.execute(TS_QUERY, (q,)).fetchall()) for q in asked]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, on a server of its own."""
    pieces = [piece for text in texts(options.data) for piece in cut(text, options.chars, options.stride)][
        : options.chunks
    ]
    asked = questions(options.data, options.questions)
    compile_loops()
    with tempfile.TemporaryDirectory() as folder, server_url() as server, bench_database(server, "lexical") as bench:
        world, told = made(bench, pieces, Path(folder) / "lexical")
        outcome: dict[str, Any] = {
            "chunks": len(pieces),
            "chars": options.chars,
            "stride": options.stride,
            "cores": os.cpu_count(),
            **told,
        }
        outcome["terms_a_question"] = statistics.mean(len(query_terms(question)) for question in asked)
        plain = PlainBm25(world.corpus, Bm25())
        for percent in VISIBLE:
            outcome[f"fast_{percent}"] = _spread(leg(world, asked, percent, TOP)[0])
            outcome[f"fast_{percent}_top{POOL}"] = _spread(leg(world, asked, percent, POOL)[0])
            outcome[f"scoring_{percent}"] = _spread(scoring(world, asked, percent))
            outcome[f"wrong_{percent}"] = wrong(world, plain, asked[: options.checked], percent)
        outcome["round_trips"] = _spread(round_trips(world, len(asked)))
        outcome["rank_bm25"] = _spread(rank_bm25(world, asked[: options.slow]))
        outcome["ts_rank_cd"] = _spread(ts_rank_cd(world, asked[: options.slow]))
        world.index.close()
    fast = outcome["fast_100"]["p50"]
    outcome["times_rank_bm25"] = round(outcome["rank_bm25"]["p50"] / fast, 1)
    outcome["times_ts_rank_cd"] = round(outcome["ts_rank_cd"]["p50"] / fast, 1)
    outcome["slowest_filter"] = round(max(outcome[f"fast_{p}"]["p50"] for p in VISIBLE[1:]) / fast, 2)
    return outcome


def _ms(call: Callable[[], object]) -> float:
    return _seconds(call) * 1000


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 3), "p95": round(float(np.quantile(values, 0.95)), 3)}


def table(outcome: dict[str, Any]) -> str:
    """What a reader wants to know first."""
    lines = [f"{outcome['chunks']} chunks of {outcome['chars']} characters, one every {outcome['stride']}, "
             f"{outcome['cores']} cores; {outcome['terms_a_question']:.1f} terms a question; p50 / p95"]  # fmt: skip
    lines.append(
        f"{'visible':>10} {'leg, top 10':>16} {'top 200':>16} {'scoring alone':>16} ms  not exact BM25's top 10"
    )
    for percent in VISIBLE:
        cells = [outcome[name] for name in (f"fast_{percent}", f"fast_{percent}_top{POOL}", f"scoring_{percent}")]
        told = " ".join(f"{cell['p50']:7.2f} / {cell['p95']:6.2f}" for cell in cells)
        lines.append(f"{percent:8} % {told}  {outcome[f'wrong_{percent}']}")
    for name in ("round_trips", "rank_bm25", "ts_rank_cd"):
        lines.append(f"{name:>10} {outcome[name]['p50']:7.2f} / {outcome[name]['p95']:6.2f}")
    lines.append(f"{outcome['times_rank_bm25']} × as fast as rank-bm25, {outcome['times_ts_rank_cd']} × as ts_rank_cd; "
                 f"with a label filter at most {outcome['slowest_filter']} × as slow as without")  # fmt: skip
    lines.append(f"replica: built in {outcome['build_s']:.1f} s, {outcome['bytes'] / 2**20:.0f} MiB, "
                 f"loaded in {outcome['load_s']:.2f} s")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--chunks", type=int, default=165_000)
    parser.add_argument("--chars", type=int, default=800)
    parser.add_argument("--stride", type=int, default=200, help="characters from one chunk's begin to the next's")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--slow", type=int, default=5, help="questions for rank-bm25 and ts_rank_cd")
    parser.add_argument("--checked", type=int, default=40, help="questions whose top 10 is compared, at each share")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"there are no texts in {options.data}: give their folder by --data")
    outcome = measure(options)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=1))
    print(table(outcome))
    raise SystemExit(1 if any(outcome[f"wrong_{percent}"] for percent in VISIBLE) else 0)


if __name__ == "__main__":
    main()
