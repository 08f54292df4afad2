"""The dense leg for callers who see all, half, a tenth, a thousandth: recall against brute force, and time.

    python -m bench.filtered_search [--rows 200000] [--real 0] [--label-sets 50000] [--cache FOLDER] [--json FILE]

Vectors are synthetic clusters of some 100 each and embeddings of real text (0: all there are, -1: none). Every row has
a label of either model: drawn at random, or by content, where neighbouring clusters are under one label. Questions of
the first model are about anything; of the second about what the asker may see (people ask about their own part), and
in the lines `elsewhere` about anything. The first columns are the leg by Postgres alone; `replica` is the leg as it is
where this host has a replica: what it asks of Postgres, and the scan in memory. Beside each line: plain pgvector, which
is the same table, indexes and filter with the planner's choice, iterative scan on and no row-level security; and the
floors, a bare round trip and a matrix product in memory over what is visible. Times are wall-clock milliseconds of the
whole leg; `cpu` is the server process's own time, which the machine's other work does not move.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from bench.corpora import Corpus, Matrix, real, synthetic
from bench.world import PROFILE, Bench, Rows, bench_database, fill, server_url
from core.labels import make_labels
from core.records import AccessScope
from retrieval.calibrate import GRAPH_FROM, calibrate
from retrieval.dense import DEPTH, nearest_each, nearest_in
from retrieval.follower import Follower
from retrieval.legs import look
from retrieval.matrix import compile_loops
from retrieval.replica import folder_of, read
from retrieval.replica_index import ReplicaIndex
from store import access, calibrations
from store.chunks import Scan
from store.pool import Conn, reading_tenant, set_scope, writing

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.005, 0.001)
# Labels of either model, by the share of rows under each: what of SHARES is no label's share is a sum of some.
LABELS = (0.16, 0.16, 0.1, 0.1, 0.1, *[0.05] * 5, *[0.02] * 5, *[0.005] * 5, *[0.001] * 5)
SERVER = {"shared_buffers": "3GB", "max_wal_size": "16GB"}  # what is searched fits into memory, as it should
PLAIN = """
    SELECT chunk_id FROM vectors_1 WHERE tenant_id = %(tenant)s AND label_set_id = ANY(%(label_sets)s::int[])
    ORDER BY embedding <#> %(query)s LIMIT %(k)s
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One point."""

    corpus: str
    model: str
    share: float
    visible: int
    label_sets: int
    routes: dict[str, int]
    recall_at_10: float
    recall_at_50: float
    short: int
    p50_ms: float
    min_ms: float
    cpu_ms: float
    replica_recall_at_10: float
    replica_recall_at_50: float
    replica_short: int
    replica_p50_ms: float
    replica_p95_ms: float
    plain_recall_at_10: float
    plain_recall_at_50: float
    plain_short: int
    plain_p50_ms: float
    plain_ratio: float  # plain pgvector's time to ours
    matrix_ms: float
    round_trip_ms: float


def labels_by_place(place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A label for each row, so that neighbouring places share one and each has about its share of LABELS."""
    order = np.argsort(place, kind="stable")
    labels = np.empty(len(place), np.int64)
    labels[order] = np.searchsorted(np.cumsum(LABELS) * len(place), np.arange(len(place)), side="right")
    return np.minimum(labels, len(LABELS) - 1)


def labels_of(share: float) -> list[int]:
    """Labels that hold this share, the largest first."""
    left, chosen = share + 1e-9, []
    for label in np.argsort(-np.array(LABELS), kind="stable"):
        if LABELS[label] <= left:
            chosen.append(int(label))
            left -= LABELS[label]
    return chosen


@dataclass(frozen=True, slots=True)
class Ground:
    """A corpus that is stored: the label set and the chunk of each of its rows."""

    bench: Bench
    corpus: Corpus
    label_sets: npt.NDArray[np.int64]
    chunk_ids: npt.NDArray[np.int64]
    admin: psycopg.Connection
    index: ReplicaIndex


@dataclass(frozen=True, slots=True)
class Asked:
    """One question's answer."""

    ids: list[int]
    ms: float
    cpu_ms: float = 0.0
    route: str = ""


def store_corpus(bench: Bench, corpus: Corpus, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Load the corpus with a label set for each of the numbers `wanted`; returns the label set of each row."""
    labels = [make_labels(["public", f"group:g{n}"]) for n in range(int(wanted.max()) + 1)]
    with writing(bench.store) as conn:
        ids = access.intern_many(conn, bench.tenant_id, labels)
    placed = np.array([ids[each] for each in labels])[wanted]
    count = len(corpus.vectors)
    fill(bench, Rows([f"d{n:07}" for n in range(count)], placed.tolist(), [f"text {n}" for n in range(count)],
                     corpus.vectors))  # fmt: skip
    return placed


def ready(bench: Bench, rows: int) -> dict[str, object]:
    """What `citadel calibrate` does, with its times."""
    started = time.perf_counter()
    while calibrations.keep_counts(bench.store):
        pass
    calibrations.vacuum_vectors(bench.admin_url, bench.profile.id)
    if rows < GRAPH_FROM:
        return {"graph_s": 0}
    calibrations.build_graph(bench.admin_url, bench.profile, bench.tenant_id, rows)
    built = time.perf_counter()
    found, points = calibrate(bench.store, AccessScope(bench.tenant_id, "service:bench", (), 0), bench.profile)
    return {"graph_s": round(built - started, 1), "calibrate_s": round(time.perf_counter() - built, 1),
            "calibration": asdict(found), "points": [asdict(point) for point in points]}  # fmt: skip


def measure(ground: Ground, model: str, share: float, mask: npt.NDArray[np.bool_], questions: Matrix) -> Line:
    """One point: every question by the product, by plain pgvector, and in memory."""
    seen = np.unique(ground.label_sets[mask])
    scope = AccessScope(ground.bench.tenant_id, "user:bench", tuple(int(each) for each in seen), 0)
    truth, matrix_ms = brute_force(ground, np.flatnonzero(mask), questions)
    ask_product(ground, scope, questions[0])  # warm
    mine = [ask_product(ground, scope, question) for question in questions]
    ask_replica(ground, scope, questions[0])
    ours = [ask_replica(ground, scope, question) for question in questions]
    ask_plain(ground, scope, questions[0])
    others = [ask_plain(ground, scope, question) for question in questions]
    p50, plain_p50 = (statistics.median(each.ms for each in asked) for asked in (mine, others))
    return Line(
        ground.corpus.name, model, share, int(mask.sum()), len(seen), dict(Counter(each.route for each in mine)),
        recall(truth, mine, 10), recall(truth, mine, 50), short(truth, mine),
        round(p50, 2), round(min(each.ms for each in mine), 2), round(statistics.median(a.cpu_ms for a in mine), 2),
        recall(truth, ours, 10), recall(truth, ours, 50), short(truth, ours), *spread(ours),
        recall(truth, others, 10), recall(truth, others, 50), short(truth, others), round(plain_p50, 2),
        round(plain_p50 / p50, 2), round(matrix_ms, 2), round_trip_ms(ground.bench),
    )  # fmt: skip


def brute_force(ground: Ground, visible: npt.NDArray[np.int64], questions: Matrix) -> tuple[list[list[int]], float]:
    """The chunks that are nearest to each question among the visible rows, and the median milliseconds of a product."""
    matrix = ground.corpus.vectors[visible].astype(np.float16).astype(np.float32)
    k = min(DEPTH, len(visible))
    truth, ms = [], []
    for question in questions:
        started = time.perf_counter()
        scores = matrix @ question
        ms.append((time.perf_counter() - started) * 1000)
        best = np.argpartition(-scores, k - 1)[:k]
        truth.append(ground.chunk_ids[visible[best[np.argsort(-scores[best], kind="stable")]]].tolist())
    return truth, statistics.median(ms)


def ask_product(ground: Ground, scope: AccessScope, question: Matrix) -> Asked:
    """The dense leg of a search, from its scope on."""
    with reading_tenant(ground.bench.store, scope.tenant_id) as conn:
        cpu, started = cpu_ms(conn), time.perf_counter()
        set_scope(conn, scope)
        found = nearest_each(conn, Scan(scope, ground.bench.profile.id), [question])
        ms = (time.perf_counter() - started) * 1000
        return Asked([each.chunk_id for each in found.lists[0]], ms, cpu_ms(conn) - cpu, found.route)


def ask_replica(ground: Ground, scope: AccessScope, question: Matrix) -> Asked:
    """The same by the replica."""
    with reading_tenant(ground.bench.store, scope.tenant_id) as conn:
        set_scope(conn, scope)
        started = time.perf_counter()
        sight = look(conn, ground.index, Scan(scope, ground.bench.profile.id))
        assert sight is not None
        found = nearest_in(sight, [question])
        ms = (time.perf_counter() - started) * 1000
    return Asked([each.chunk_id for each in found.lists[0]], ms, 0.0, found.route)


def ask_plain(ground: Ground, scope: AccessScope, question: Matrix) -> Asked:
    """What one writes who has read pgvector's manual, as superuser."""
    values = {"tenant": scope.tenant_id, "label_sets": scope.array, "query": HalfVector(question), "k": DEPTH}
    started = time.perf_counter()
    rows = ground.admin.execute(PLAIN, values, prepare=False).fetchall()
    return Asked([row[0] for row in rows], (time.perf_counter() - started) * 1000)


def recall(truth: Sequence[Sequence[int]], asked: Sequence[Asked], k: int) -> float:
    """The mean share of the k nearest, or of all that there are, among the first k answered."""
    shares = [len({*wanted[:k]} & {*each.ids[:k]}) / len(wanted[:k]) for wanted, each in zip(truth, asked, strict=True)]
    return round(statistics.mean(shares), 4)


def spread(asked: Sequence[Asked]) -> tuple[float, float]:
    """p50 and p95 in milliseconds."""
    times = [each.ms for each in asked]
    return round(statistics.median(times), 2), round(float(np.quantile(times, 0.95)), 2)


def short(truth: Sequence[Sequence[int]], asked: Sequence[Asked]) -> int:
    """How many answers have fewer than they could."""
    return sum(len(each.ids) < len(wanted) for wanted, each in zip(truth, asked, strict=True))


def cpu_ms(conn: Conn) -> float:
    """Milliseconds that the connection's server process has run, on Linux; its parallel workers are not counted."""
    try:
        return int(Path(f"/proc/{conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6
    except OSError:
        return 0.0


def round_trip_ms(bench: Bench) -> float:
    """The median of a statement that does nothing."""
    times = []
    with reading_tenant(bench.store, bench.tenant_id) as conn:
        for _ in range(50):
            started = time.perf_counter()
            conn.execute("SELECT 1").fetchone()
            times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 3)


@contextmanager
def laid_out(server: str, corpus: Corpus, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[Ground, dict[str, object]]]:
    """The corpus in a database of its own, calibrated, with what that took."""
    profile = replace(PROFILE, dimensions=corpus.vectors.shape[1])
    with (
        tempfile.TemporaryDirectory() as root,
        bench_database(server, f"filtered_{corpus.name}_{int(wanted.max())}", profile) as bench,
        closing(ReplicaIndex(bench.store, Path(root), watch_s=0)) as index,
    ):
        label_sets = store_corpus(bench, corpus, wanted)
        took = ready(bench, len(corpus.vectors)) | followed(bench, Path(root))
        with psycopg.connect(bench.admin_url, autocommit=True) as admin:
            register_vector(admin)
            admin.execute("SELECT '[0]'::halfvec(1)")  # loads pgvector, so that the setting is taken or an error
            admin.execute("SET hnsw.iterative_scan = relaxed_order")
            yield Ground(bench, corpus, label_sets, chunk_ids(admin, len(corpus.vectors)), admin, index), took


def followed(bench: Bench, root: Path) -> dict[str, object]:
    """Make the replica; how long that takes, and its bytes on the disk."""
    started = time.perf_counter()
    Follower(bench.store, root).step()
    took = time.perf_counter() - started
    folder = folder_of(root, bench.tenant_id, bench.profile.id)
    sizes = {path.suffix[1:]: path.stat().st_size for path in folder.iterdir() if path.suffix}
    started = time.perf_counter()
    read(folder)
    return {"replica_s": round(took, 1), "replica_read_s": round(time.perf_counter() - started, 2), "replica": sizes}


def chunk_ids(admin: psycopg.Connection, count: int) -> npt.NDArray[np.int64]:
    """The chunk of each row, which is the document of its number."""
    rows = admin.execute("SELECT d.external_id, c.id FROM chunks c JOIN documents d ON d.id = c.document_id")
    found = np.empty(count, np.int64)
    for name, chunk_id in rows:
        found[int(name[1:])] = chunk_id
    return found


def both_models(server: str, corpus: Corpus, count: int) -> tuple[list[Line], dict[str, object]]:
    """Every share by either model: a row's label set is the pair of its two labels."""
    rows = len(corpus.vectors)
    drawn = np.random.default_rng(3).choice(len(LABELS), rows, p=np.array(LABELS) / sum(LABELS))
    placed = labels_by_place(corpus.place)
    questions = corpus.questions[:count]
    lines = []
    with laid_out(server, corpus, drawn * len(LABELS) + placed) as (ground, took):
        for share in SHARES:
            lines.append(measure(ground, "uncorrelated", share, np.isin(drawn, labels_of(share)), questions))
            tell(lines[-1])
            if share == 1:
                continue  # the same for both models
            mask = np.isin(placed, labels_of(share))
            lines.append(measure(ground, "correlated", share, mask, near(corpus, mask, count)))
            tell(lines[-1])
            lines.append(measure(ground, "elsewhere", share, mask, questions))
            tell(lines[-1])
    return lines, took


def near(corpus: Corpus, mask: npt.NDArray[np.bool_], count: int) -> Matrix:
    """Those questions, of all, that are nearest to what is visible, compared with a sample of both kinds of rows."""
    chance = np.random.default_rng(4)
    seen, hidden = (chance.permutation(np.flatnonzero(each))[:2000] for each in (mask, ~mask))
    own = (corpus.questions @ corpus.vectors[seen].T).max(axis=1)
    other = (corpus.questions @ corpus.vectors[hidden].T).max(axis=1)
    return corpus.questions[np.argsort(other - own, kind="stable")[:count]]


def many_label_sets(server: str, corpus: Corpus, label_sets: int, count: int) -> list[Line]:
    """Everything is visible, under so many label sets; and a tenth of it."""
    wanted = np.random.default_rng(5).integers(0, label_sets, len(corpus.vectors))
    lines = []
    with laid_out(server, corpus, wanted) as (ground, _):
        for share in (1.0, 0.1):
            mask = wanted < share * label_sets
            lines.append(measure(ground, f"{label_sets} sets", share, mask, corpus.questions[:count]))
            tell(lines[-1])
    return lines


HEADS = ("corpus", "model", "share", "visible", "routes", "r@10", "r@50", "short", "p50", "min", "cpu", "replica p50",
         "p95", "r@10", "r@50", "short", "plain p50", "ratio", "plain r@10", "r@50", "short", "matrix")  # fmt: skip
FORMAT = ("{:9} {:12} {:>6} {:>8} {:26} {:>6} {:>6} {:>5} {:>7} {:>7} {:>7} {:>11} {:>6} {:>6} {:>6} {:>5} {:>9} "
          "{:>6} {:>10} {:>6} {:>5} {:>7}")  # fmt: skip


def tell(line: Line) -> None:
    """A line of the table."""
    routes = " ".join(f"{route}:{n}" for route, n in line.routes.items())
    values = (line.corpus, line.model, f"{line.share:.1%}", line.visible, routes, line.recall_at_10, line.recall_at_50,
              line.short, line.p50_ms, line.min_ms, line.cpu_ms, line.replica_p50_ms, line.replica_p95_ms,
              line.replica_recall_at_10, line.replica_recall_at_50, line.replica_short, line.plain_p50_ms,
              line.plain_ratio, line.plain_recall_at_10, line.plain_recall_at_50, line.plain_short,
              line.matrix_ms)  # fmt: skip
    print(FORMAT.format(*values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="synthetic ones; 0: none")
    parser.add_argument("--real", type=int, default=0, help="real chunks at most; 0: all, -1: none")
    parser.add_argument("--label-sets", type=int, default=50_000, help="of the last two lines; 0: none")
    parser.add_argument("--questions", type=int, default=40, help="a line")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "citadel-bench-cache")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    corpora = [synthetic(options.rows)] if options.rows else []
    if options.real >= 0 and (found := real(options.cache, options.real)):
        corpora.append(found)
    print(FORMAT.format(*HEADS))
    lines, took = [], {}
    compile_loops()
    with server_url(SERVER) as server:
        for corpus in corpora:
            more, took[corpus.name] = both_models(server, corpus, options.questions)
            lines += more
        if options.label_sets and corpora:
            lines += many_label_sets(server, corpora[0], options.label_sets, options.questions)
    if lines:
        print(f"made ready: {took}\nround trip {lines[0].round_trip_ms} ms, {os.cpu_count()} cores")
    if options.json:
        whole = {"cores": os.cpu_count(), "took": took, "lines": [asdict(line) for line in lines]}
        options.json.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
