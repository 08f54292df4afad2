"""What hidden documents change in the answers of the approximate route, measured.

    python -m bench.paired_approximate [--rows 20000] [--queries 500] [--json]

Tenants with the same visible chunks: one has those alone, one twice as many with hidden ones between them, and a third
is the first again: what differs between those two, building a graph again has moved, and nothing hidden. Each has its
graph, and every question goes through it first. The exact route and the lexical leg differ in nothing; `make leaks`
compares their answers byte for byte.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from core.records import AccessScope
from models.fake_embedder import FakeEmbedder
from retrieval.dense import nearest_each
from store import access, calibrations
from store.chunks import Scan
from store.pool import reading_tenant, set_scope, writing
from store.profiles import ensure_tenant
from store.vectors import Calibration

CENTERS = 200
TOP = 8  # a search's default


@dataclass(frozen=True, slots=True)
class World:
    """A tenant as one asker sees it, and the row that each of its chunks was made of."""

    bench: Bench
    scope: AccessScope
    rows: dict[int, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the answers to the same questions in two worlds."""

    queries: int
    differ: float  # share of the answers that are not the same list
    differ_in_top: float  # share whose first eight are not the same list
    overlap: float  # mean share of an answer's chunks that are in the other's
    scanned: float  # share of the answers that a scan gave in either world, where too little of what is near is visible


def clustered(rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors [rows, dimensions] around centers that are the same for every seed."""
    dimensions, chance = FakeEmbedder.dimensions, np.random.default_rng(seed)
    centers = unit_vectors(CENTERS, dimensions, 7)
    found = centers[chance.integers(0, len(centers), rows)] + 0.7 * unit_vectors(rows, dimensions, seed)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def make_world(bench: Bench, name: str, visible: npt.NDArray[np.float32], hidden: npt.NDArray[np.float32]) -> World:
    """A tenant of that name with these chunks, in turn, its graph, and the order to use it always."""
    with writing(bench.store) as conn:
        bench = replace(bench, tenant_id=ensure_tenant(conn, name, bench.profile.id))
        labels = (make_labels(["public"]), make_labels(["group:others"]))
        ids = access.intern_many(conn, bench.tenant_id, labels)
    order = np.argsort(np.concatenate([np.arange(len(visible)), np.arange(len(hidden)) + 0.5]), kind="stable")
    placed = [ids[labels[int(row >= len(visible))]] for row in order]
    vectors = np.concatenate([visible, hidden])[order]
    names = [f"d{row:07}" for row in order]
    fill(bench, Rows(names, placed, [f"text {row}" for row in order], vectors))
    calibrations.build_graph(bench.admin_url, bench.profile, bench.tenant_id, len(names))
    with writing(bench.store) as conn:
        calibrations.save(conn, bench.tenant_id, bench.profile.id, Calibration(0, 250), [])
        made = conn.execute("SELECT c.id, d.external_id FROM chunks c JOIN documents d ON d.id = c.document_id "
                            "WHERE d.tenant_id = %s", (bench.tenant_id,)).fetchall()  # fmt: skip
    scope = AccessScope(bench.tenant_id, "user:ana", (ids[labels[0]],), 0)
    return World(bench, scope, {chunk_id: int(name[1:]) for chunk_id, name in made})


def ask(world: World, question: npt.NDArray[np.float32]) -> tuple[list[int], bool]:
    """Rows, best first, and whether a scan had to supply some."""
    with reading_tenant(world.bench.store, world.scope.tenant_id) as conn:
        set_scope(conn, world.scope)
        found = nearest_each(conn, Scan(world.scope, world.bench.profile.id), [question])
    return [world.rows[candidate.chunk_id] for candidate in found.lists[0]], found.route != "graph"


def difference(one: World, two: World, questions: Sequence[npt.NDArray[np.float32]]) -> Difference:
    """Ask both."""
    pairs = [(ask(one, question), ask(two, question)) for question in questions]
    lists = [(a, b) for (a, _), (b, _) in pairs]
    count = len(pairs)
    return Difference(
        count,
        round(sum(a != b for a, b in lists) / count, 4),
        round(sum(a[:TOP] != b[:TOP] for a, b in lists) / count, 4),
        round(sum(len({*a} & {*b}) / len(a) for a, b in lists) / count, 4),
        round(sum(a or b for (_, a), (_, b) in pairs) / count, 4),
    )


def measure(bench: Bench, rows: int, queries: int) -> dict[str, Difference]:
    """The difference that hidden chunks make, and the one that building again makes."""
    visible, hidden = clustered(rows, 1), clustered(rows, 2)
    nothing = hidden[:0]
    alone, again, beside = (
        make_world(bench, name, visible, more)
        for name, more in (("alone", nothing), ("again", nothing), ("beside", hidden))
    )
    questions = list(clustered(queries, 3))
    return {"hidden": difference(alone, beside, questions), "built_again": difference(alone, again, questions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="visible chunks")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with server_url() as server, bench_database(server, "paired") as bench:
        found = measure(bench, options.rows, options.queries)
    told = {name: {key: getattr(each, key) for key in Difference.__slots__} for name, each in found.items()}
    print(json.dumps(told) if options.json else "\n".join(f"{name:12} {each}" for name, each in told.items()))


if __name__ == "__main__":
    main()
