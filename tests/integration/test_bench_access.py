"""The benchmarks of access control at a small size: their checks hold, and a planted leak is counted."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from bench import access as bench_access
from bench import share as bench_share
from bench.world import Bench, bench_database
from embedded.server import Server
from store import access
from store.pool import writing


@pytest.fixture
def bench(postgres: Server) -> Iterator[Bench]:
    """A database of the benchmark's own on the tests' server."""
    name = f"bench_{uuid4().hex[:12]}"
    with bench_database(postgres.url, name) as opened:
        yield opened
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_share_is_searched_without_a_leak_before_and_after_it_changes(bench: Bench) -> None:
    outcome = bench_share.run(bench, bench_share.invent(1500, users=60, groups=20), askers=8)
    assert (outcome["leaks"], outcome["missing"]) == (0, 0)
    assert int(str(outcome["pairs_checked"])) > 5000
    assert outcome["of_them_see_less"] and outcome["documents_that_follow"] and outcome["documents_moved"]


def test_a_leak_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a scope that shows everything."""
    share = bench_share.invent(300, users=20, groups=8)
    run = bench_share.Run(bench, share, askers=4)
    run.load()
    with writing(bench.store) as conn:
        every = tuple(row[0] for row in conn.execute("SELECT id FROM label_sets"))
    monkeypatch.setattr(access, "visible_label_sets", lambda *arguments: every)
    run.search_all()
    run.list_all(run.askers)
    run.searcher.threads.shutdown()
    assert run.leaks > 100


def test_resolving_and_filtering_are_measured(bench: Bench) -> None:
    bench_access.make_world(bench, 400, 300)
    resolved, filtered = bench_access.resolving(bench, 2), bench_access.filtering(bench, 2)
    assert resolved["label_sets"] == 300 and filtered["filter_ratio"] > 0
    assert bench_access.searching(bench, 1).keys() == {"search_dense_ms", "search_lexical_ms"}
