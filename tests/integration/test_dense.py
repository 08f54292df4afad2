"""The dense leg's two ways on a tenant with a graph: right, never short, and nothing of what the caller may not see."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from click.testing import CliRunner
from pgvector import HalfVector
from psycopg import sql

from bench.paired_approximate import clustered, measure
from bench.world import Bench, Rows, fill
from cli.main import citadel
from core.labels import make_labels
from core.records import AccessScope, SearchRequest
from retrieval.dense import DEPTH, Found, nearest_each
from retrieval.search import Searcher, search
from store import access, calibrations, vectors
from store.changes import vectors_table
from store.chunks import Scan
from store.filters import compile_filter
from store.pool import Conn, reading_tenant, set_scope, writing
from store.profiles import ensure_tenant
from store.vectors import Calibration
from tests.conftest import World

ROWS, SETS = 3000, 60
ALWAYS = Calibration(0, 250)  # every search tries the graph
CHUNKS = """
    SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document_id WHERE d.tenant_id = %s ORDER BY d.external_id
"""
GRAPH = """
    SELECT pg_get_expr(indpred, indrelid), reltuples::int FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE relname = %s
"""


@dataclass(frozen=True, slots=True)
class Large:
    """A tenant with a graph: the vectors [ROWS, dimensions], and each row's chunk and label set."""

    world: World
    vectors: npt.NDArray[np.float32]
    chunk_ids: npt.NDArray[np.int64]
    label_sets: npt.NDArray[np.int64]

    def scope(self, share: float, seed: int) -> AccessScope:
        """Of somebody who sees about this share, by label sets drawn at random."""
        drawn = random.Random(seed).sample(sorted(set(self.label_sets.tolist())), max(1, round(share * SETS)))
        return AccessScope(self.world.tenant_id, "user:ana", tuple(sorted(drawn)), 0)

    def truth(self, scope: AccessScope, question: npt.NDArray[np.float32], k: int = DEPTH) -> list[int]:
        """The nearest visible chunks by brute force, of the numbers that the index keeps."""
        seen = np.isin(self.label_sets, scope.label_set_ids)
        halves = self.vectors[seen].astype(np.float16).astype(np.float64)
        scores = halves @ question.astype(np.float16).astype(np.float64)
        return [int(each) for each in self.chunk_ids[seen][np.lexsort((self.chunk_ids[seen], -scores))][:k]]

    def ask(self, scope: AccessScope, question: npt.NDArray[np.float32], **more: object) -> Found:
        """The leg, under the scope."""
        with reading_tenant(self.world.store, scope.tenant_id) as conn:
            set_scope(conn, scope)
            return nearest_each(conn, Scan(scope, self.world.profile.id, **more), [question])  # type: ignore[arg-type]

    def use(self, calibration: Calibration) -> None:
        """Route by this."""
        with writing(self.world.store) as conn:
            calibrations.save(conn, self.world.tenant_id, self.world.profile.id, calibration, [])


def ids(found: Found) -> list[int]:
    return [candidate.chunk_id for candidate in found.lists[0]]


def load(world: World, admin_url: str, seed: int) -> Large:
    """The tenant's chunks under SETS label sets at random."""
    matrix = clustered(ROWS, seed)
    with writing(world.store) as conn:
        labels = [make_labels([f"group:g{number}"]) for number in range(SETS)]
        interned = access.intern_many(conn, world.tenant_id, labels)
    placed = [interned[labels[number]] for number in np.random.default_rng(seed).integers(0, SETS, ROWS)]
    bench = Bench(world.store, admin_url, world.tenant_id, world.profile)
    fill(bench, Rows([f"d{n:05}" for n in range(ROWS)], placed, [f"text {n}" for n in range(ROWS)], matrix))
    with writing(world.store) as conn:
        made = conn.execute(CHUNKS, (world.tenant_id,)).fetchall()
    return Large(world, matrix, np.array([row[0] for row in made]), np.array(placed))


@pytest.fixture
def large(world: World, database_url: str) -> Large:
    """A tenant whose every search tries the graph, beside another one with its own chunks and graph."""
    with writing(world.store) as conn:
        other = replace(world, tenant_id=ensure_tenant(conn, "other", world.profile.id))
    load(other, database_url, 5)
    made = load(world, database_url, 1)
    for tenant_id in (other.tenant_id, world.tenant_id):
        assert calibrations.build_graph(database_url, world.profile, tenant_id, ROWS)
    assert not calibrations.build_graph(database_url, world.profile, world.tenant_id, ROWS)  # it stands
    calibrations.vacuum_vectors(database_url, world.profile.id)
    made.use(ALWAYS)
    return made


QUESTIONS = list(clustered(20, 9))


def test_both_ways_find_the_nearest_and_are_never_short(large: Large) -> None:
    found_by, hits = set(), []
    for share in (1.0, 0.6, 0.2, 0.02):
        for number, question in enumerate(QUESTIONS):
            scope = large.scope(share, number)
            truth, found = large.truth(scope, question), large.ask(scope, question)
            found_by.add(found.route)
            assert len(ids(found)) == len(truth)
            assert found.visible == int(np.isin(large.label_sets, scope.label_set_ids).sum())
            if found.route == "graph":
                hits.append(len({*ids(found)[:10]} & {*truth[:10]}) / 10)
            else:
                assert found.shortfall > 0 and ids(found) == truth  # a scan is exact, ties by id
    assert found_by == {"graph", "graph+exact"}
    assert np.mean(hits) >= 0.98


def test_without_a_graph_or_below_the_crossover_it_is_exact(large: Large, database_url: str) -> None:
    scope = large.scope(0.5, 1)
    large.use(Calibration(ROWS, 250))
    assert large.ask(scope, QUESTIONS[0]).route == "exact"
    large.use(Calibration(0, 0))  # a graph that misses too much is calibrated away
    assert large.ask(scope, QUESTIONS[0]).route == "exact"
    large.use(ALWAYS)
    assert large.ask(scope, QUESTIONS[0]).route == "graph"
    calibrations.drop_graph(database_url, large.world.profile.id, large.world.tenant_id)
    found = large.ask(scope, QUESTIONS[0])
    assert (found.route, ids(found)) == ("exact", large.truth(scope, QUESTIONS[0]))


def test_a_filter_leaves_no_answer_short(large: Large) -> None:
    scope, question = large.scope(1.0, 1), QUESTIONS[0]
    names = [f"d{n:05}" for n in range(0, ROWS, 30)]
    kept = {int(large.chunk_ids[n]) for n in range(0, ROWS, 30)}
    found = large.ask(scope, question, where=compile_filter({"external_id": {"$in": names}}))
    assert found.route == "graph+exact"
    assert set(ids(found)) == kept  # all hundred, of which the walk met a few
    large.use(Calibration(100, 250))
    found = large.ask(scope, question, where=compile_filter({"external_id": {"$in": names}}))
    assert (found.route, set(ids(found))) == ("exact", kept)


def test_nothing_foreign_in_hundreds_of_scopes(large: Large) -> None:
    """Also where the leg's own condition names every label set there is: the policy alone holds."""
    owner = dict(zip(large.chunk_ids.tolist(), large.label_sets.tolist(), strict=True))
    every = AccessScope(large.world.tenant_id, "user:ana", tuple(range(1, 10 * SETS)), 0)
    chance, seen = random.Random(2), 0
    for number in range(200):
        scope = large.scope(chance.choice((0.02, 0.3, 0.7, 0.95)), number)
        question = chance.choice(QUESTIONS)
        with reading_tenant(large.world.store, scope.tenant_id) as conn:
            set_scope(conn, scope)
            for wanted in (scope, every):
                scan = Scan(wanted, large.world.profile.id)
                by_graph = vectors.nearest_by_graph(conn, scan, question, 250)
                by_scan = vectors.nearest(conn, scan, question, DEPTH)
                for candidate in (*by_graph, *by_scan):
                    assert owner.get(candidate.chunk_id) in scope.label_set_ids
                seen += len(by_graph)
    assert seen > 10_000


def test_revocation_and_deny_hold_on_the_walk(large: Large) -> None:
    world = large.world

    def found_by(subject: str) -> set[int]:
        with reading_tenant(world.store, world.tenant_id) as conn:
            scope = access.enter_scope(conn, world.who(subject), world.store.scopes)
            found = nearest_each(conn, Scan(scope, world.profile.id), [QUESTIONS[0]])
        return {int(large.label_sets[np.flatnonzero(large.chunk_ids == each)[0]]) for each in ids(found)}

    world.groups({f"group:g{number}": ["user:ana"] for number in range(SETS)})
    assert len(found_by("user:ana")) > 20
    world.groups({"group:g3": ["user:ana"]})
    left = found_by("user:ana")
    assert len(left) == 1
    with writing(world.store) as conn:
        access.relabel_set(conn, world.tenant_id, left.pop(), make_labels(["group:g3"], ["user:ana"]))
    assert found_by("user:ana") == set()


@pytest.fixture
def app(large: Large) -> Iterator[tuple[Conn, AccessScope]]:
    """A reader's transaction of somebody who sees most."""
    scope = large.scope(0.8, 1)
    with reading_tenant(large.world.store, scope.tenant_id) as conn:
        set_scope(conn, scope)
        yield conn, scope


def plan(conn: Conn, statement: str, scan: Scan) -> str:
    """What the planner does with it, as the role that asks."""
    explained = sql.SQL("EXPLAIN (ANALYZE, COSTS OFF) " + statement).format(
        vectors=vectors_table(scan.profile_id), filter=sql.SQL(""), tenant=sql.Literal(scan.scope.tenant_id)
    )
    values = {**scan.values(), "query": HalfVector(QUESTIONS[0]), "k": DEPTH}
    return "\n".join(row[0] for row in conn.execute(explained, values).fetchall())


def test_the_plans_are_the_intended_ones_under_the_policies(app: tuple[Conn, AccessScope], large: Large) -> None:
    conn, scope = app
    assert conn.execute("SELECT current_user").fetchone() == ("citadel_app",)
    scan = Scan(scope, large.world.profile.id)
    vectors.nearest(conn, scan, QUESTIONS[0], DEPTH)
    exact = plan(conn, vectors.NEAREST, scan)
    assert f"Index Only Scan using vectors_{scan.profile_id}_scan" in exact and "Heap Fetches: 0" in exact
    vectors.nearest_by_graph(conn, scan, QUESTIONS[0], 250)
    walk = plan(conn, vectors.NEAREST_ON_WALK, scan)
    assert f"Index Scan using {vectors.graph_name(scan.profile_id, scope.tenant_id)}" in walk and "Sort" not in walk
    assert all("hashed SubPlan" in each for each in (exact, walk))  # the policy is looked up, not run for each row


def test_settings_are_taken_or_are_an_error(app: tuple[Conn, AccessScope]) -> None:
    conn, _ = app
    conn.execute(vectors.WALK, (333,))
    row = conn.execute("SELECT setting FROM pg_settings WHERE name = 'hnsw.ef_search'").fetchone()
    assert row == ("333",)  # a placeholder of a library that is not loaded would not stand there
    with pytest.raises(psycopg.Error, match="ef_search"):
        conn.execute(vectors.WALK, (5000,))


def test_a_search_tells_operators_the_route(large: Large, searcher: Searcher) -> None:
    large.world.groups({f"group:g{number}": ["user:ana"] for number in range(SETS)})
    answer = search(searcher, large.world.who("user:ana"), SearchRequest("text", mode="dense"))
    detail = next(stage.detail for stage in answer.activity if stage.stage == "dense")
    assert detail["route"] in ("graph", "graph+exact")
    assert detail["candidates"] == DEPTH


def test_calibrate_builds_measures_and_routes(
    world: World, database_url: str, app_url: str, maintenance_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load(world, database_url, 1)
    settings = {"DATABASE_URL": database_url, "APP_DATABASE_URL": app_url, "MAINTENANCE_DATABASE_URL": maintenance_url}
    for name, value in settings.items():
        monkeypatch.setenv(f"CITADEL_{name}", value)
    small = CliRunner().invoke(citadel, ["calibrate"])
    assert small.exit_code == 0 and "every search scans" in small.output
    scope = made.scope(1.0, 1)
    assert outlook(made, scope).calibration is None
    done = CliRunner().invoke(citadel, ["calibrate", "--graph-from", "1000", "--json"])
    assert done.exit_code == 0, done.output
    known = outlook(made, scope).calibration
    assert known is not None and known.ef_search == 250
    truth = made.truth(scope, QUESTIONS[0])
    assert len({*ids(made.ask(scope, QUESTIONS[0]))} & {*truth}) >= 0.95 * DEPTH


def outlook(large: Large, scope: AccessScope) -> vectors.Outlook:
    with reading_tenant(large.world.store, scope.tenant_id) as conn:
        set_scope(conn, scope)
        return vectors.outlook(conn, Scan(scope, large.world.profile.id))


def test_hidden_chunks_move_little_on_the_walk_and_nothing_in_its_control(world: World, database_url: str) -> None:
    found = measure(Bench(world.store, database_url, world.tenant_id, world.profile), 1500, 40)
    assert found["hidden"].differ_in_top <= 0.1
    assert found["hidden"].overlap >= 0.9
    assert found["built_again"].overlap >= found["hidden"].overlap


def test_a_tenant_is_not_in_another_tenants_graph(large: Large) -> None:
    """Its index is partial: as many entries as the tenant has chunks, of the two tenants' in the table."""
    graph = vectors.graph_name(large.world.profile.id, large.world.tenant_id)
    with writing(large.world.store) as conn:
        rows = conn.execute(GRAPH, (graph,)).fetchall()
    assert rows == [(f"(tenant_id = '{large.world.tenant_id}'::uuid)", ROWS)]
