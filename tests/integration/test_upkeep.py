"""Upkeep: each step takes away what it should and nothing else, can be tried first, and runs beside readers."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from core.config import Settings
from core.errors import Conflict, ModelMismatch, NotFound, Removed
from core.records import Labels, Profile, SearchRequest
from ingest.pipeline import Pipeline
from ingest.reembed import Target, Why, catch_up, flip
from ingest.schedule import add_folder
from ingest.upkeep import STEPS, Report, Upkeep, keep_up, run
from models.fake_embedder import FakeEmbedder
from models.shelf import Shelf
from retrieval.search import Searcher, search
from store import access, documents, jobs, kept_profiles, retention, sources, upkeep
from store.audit import Actor
from store.broker import QUEUES
from store.calibrations import build_graph
from store.migrate import as_owner
from store.pool import alone, reading_tenant, writing
from store.profiles import ensure_profile
from store.retention import Retention
from tests.conftest import Api, World
from tests.integration.rows import fetch
from workers.app import make_app
from workers.tasks import SWEEP, routes

ANA, BEN = "user:ana", "user:ben"


def no_model(profile: Profile) -> Any:
    raise ModelMismatch("no model is needed here")


def done(world: World, step: str, **how: Any) -> Report:
    """What one step came to."""
    (report,) = run(Upkeep(world.store, world.blobs, no_model, **how), [step])
    assert report.skipped == ""
    return report


def keep(world: World, versions: int | None, days: int | None = None) -> None:
    with writing(world.store) as conn:
        retention.set_retention(conn, world.tenant_id, Retention(versions, days))


def versions(world: World) -> list[int]:
    return [row[0] for row in fetch(world, "SELECT version FROM versions ORDER BY version")]


def history(world: World, count: int) -> documents.Span:
    """A document of so many versions, each replaced a day after it came, the last one now."""
    for number in range(1, count + 1):
        submitted = world.add("d", f"The text number {number}.")
    with writing(world.store) as conn:
        conn.execute("UPDATE versions SET created_at = now() - make_interval(days => %s - version)", (count,))
    return documents.Span(submitted.document_id, count, 0, 1)


# --- retention ------------------------------------------------------------------------------------------------------


def test_versions_beyond_the_limit_go_with_their_bytes(world: World) -> None:
    document = history(world, 5)
    keys = dict(fetch(world, "SELECT version, blob_key FROM versions"))
    keep(world, 2)
    wanted = {"documents": 1, "versions": 2, "blobs": 2}
    assert done(world, "retention", dry_run=True).counts == {**wanted, "blobs": 0}
    assert versions(world) == [1, 2, 3, 4, 5]
    assert done(world, "retention").counts == wanted
    assert versions(world) == [3, 4, 5]
    assert [world.blobs.has(keys[number]) for number in range(1, 6)] == [False, False, True, True, True]
    assert done(world, "retention").counts == {"documents": 0, "versions": 0, "blobs": 0}
    for version, wrong in ((1, Removed), (2, Removed), (6, NotFound)):
        with pytest.raises(wrong) as raised, reading_tenant(world.store, world.tenant_id) as conn:
            access.enter_scope(conn, world.who(ANA))
            documents.read_text(conn, document.document_id, version, 0, None)
        assert type(raised.value) is wrong


@pytest.mark.parametrize(
    ("kept_versions", "kept_days", "left"),
    [
        (None, None, [1, 2, 3, 4, 5]),
        (0, None, [5]),
        (4, None, [1, 2, 3, 4, 5]),
        (None, 0, [5]),
        (None, 2, [3, 4, 5]),  # 2 was replaced by 3, 2 days and a moment ago
        (3, 1, [2, 3, 4, 5]),  # what either one keeps
        (1, 3, [2, 3, 4, 5]),
    ],
)
def test_what_either_limit_keeps_stays(
    world: World, kept_versions: int | None, kept_days: int | None, left: list[int]
) -> None:
    history(world, 5)
    keep(world, kept_versions, kept_days)
    done(world, "retention")
    assert versions(world) == left


def test_a_version_that_is_not_indexed_yet_replaces_nothing(world: World) -> None:
    world.add("d", "one")
    world.submit("d", "two")
    keep(world, 0)
    assert done(world, "retention").counts["versions"] == 0 and versions(world) == [1, 2]


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_jobs_go_when_they_ended_long_enough_ago(world: World) -> None:
    ended = [world.add(state, "text").document_id for state in ("done", "failed", "quarantined", "cancelled")]
    with writing(world.store) as conn:
        for document_id, state in zip(ended, ("done", "failed", "quarantined", "cancelled"), strict=True):
            conn.execute("UPDATE jobs SET state = %s WHERE document_id = %s", (state, document_id))
    waits = world.submit("waits", "text").document_id
    why = world.submit("why", "text").document_id  # its latest version was given up: the job says why
    recent = world.add("recent", "text").document_id
    lags = add_folder(world.store, world.tenant_id, "f", {"path": "/f"}, Labels(), None, 1.0)
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET state = 'quarantined' WHERE document_id = %s", (why,))
        conn.execute("UPDATE versions SET state = 'failed' WHERE document_id = %s", (why,))
        jobs.add_refresh(conn, world.tenant_id, lags.id, datetime.now(UTC) - timedelta(days=40))
        conn.execute("UPDATE jobs SET state = 'failed' WHERE kind = 'refresh'")
        conn.execute("UPDATE jobs SET updated_at = now() - interval '31 days' WHERE document_id IS DISTINCT FROM %s",
                     (recent,))  # fmt: skip

    def left() -> set[UUID | None]:
        return {row[0] for row in fetch(world, "SELECT document_id FROM jobs")}

    def keep_jobs(days: int | None) -> None:
        with writing(world.store) as conn:
            retention.set_retention(conn, world.tenant_id, Retention(None, None, days))

    everything = {*ended, waits, why, recent, None}
    for days in (None, 32):
        keep_jobs(days)
        assert done(world, "jobs").counts == {"jobs": 0} and left() == everything
    keep_jobs(30)
    assert done(world, "jobs", dry_run=True).counts == {"jobs": 4} and left() == everything
    assert done(world, "jobs").counts == {"jobs": 4} and left() == {waits, why, recent, None}
    with writing(world.store) as conn:
        sources.succeeded(conn, lags.id, datetime.now(UTC), {})
    assert done(world, "jobs").counts == {"jobs": 1}


def test_bytes_that_another_version_holds_stay(world: World) -> None:
    world.add("d", "the same bytes")
    world.add("d", "others")
    world.add("e", "the same bytes")
    keep(world, 0)
    assert done(world, "retention").counts == {"documents": 1, "versions": 1, "blobs": 0}
    assert all(world.blobs.has(key) for (key,) in fetch(world, "SELECT blob_key FROM versions"))


def test_who_follows_a_citation_to_a_removed_version_is_told_so_and_nobody_else_is(api: Api) -> None:
    world = api.world
    world.groups({})
    for number in (1, 2):
        submitted = world.add("d", f"The text number {number}.", (ANA,))
    keep(world, 0)
    done(world, "retention")
    key = api.key("k", "search", "act_for")
    url = f"/v1/documents/{submitted.document_id}/text"
    told = {
        who: api.http.get(url, params={"version": 1}, headers={**key, "X-Citadel-Act-For": who}) for who in (ANA, BEN)
    }
    absent = api.http.get(url, params={"version": 9}, headers={**key, "X-Citadel-Act-For": ANA})
    assert [told[ANA].status_code, told[BEN].status_code, absent.status_code] == [410, 404, 404]
    assert told[ANA].json()["code"] == "removed" and "current one" in told[ANA].json()["detail"]
    assert told[BEN].content == absent.content


# --- orphans and blobs ----------------------------------------------------------------------------------------------


@pytest.fixture
def kept(world: World, database_url: str) -> Target:
    """A second profile beside the live one."""
    with as_owner(database_url) as conn:
        profile = ensure_profile(conn, Profile(0, "small", "fake-64", 64, "f32", 60, "structure"))
    with writing(world.store) as conn:
        kept_profiles.keep(conn, world.tenant_id, profile.id)
    return Target(world.tenant_id, profile, FakeEmbedder(64))


def test_chunks_that_no_search_finds_go(world: World, kept: Target) -> None:
    world.add("a", "A text that stays."), world.add("b", "A text that is replaced.")
    catch_up(world.store, kept)
    world.add("b", "Another text.")  # under the live profile alone: the other one has the version before
    assert done(world, "orphans", dry_run=True).counts == {"chunks": 1, "vectors": 0, "codes": 0}
    assert done(world, "orphans").counts == {"chunks": 1, "vectors": 0, "codes": 0}
    assert done(world, "orphans").counts == {"chunks": 0, "vectors": 0, "codes": 0}
    with writing(world.store) as conn:  # as if `citadel profile drop` had been interrupted
        kept_profiles.release(conn, world.tenant_id, kept.profile.id)
    assert done(world, "orphans").counts["chunks"] == 1
    left = fetch(world, "SELECT external_id, profile_id, version FROM chunks c JOIN documents d ON d.id = document_id")
    assert sorted(left) == [("a", world.profile.id, 1), ("b", world.profile.id, 2)]
    for table in (f"vectors_{kept.profile.id}", f"tokens_{kept.profile.id}"):
        assert fetch(world, f"SELECT FROM {table}") == []  # noqa: S608


def test_vectors_and_codes_without_a_chunk_go(world: World, database_url: str) -> None:
    world.add("a", "One."), world.add("b", "Two.")
    with psycopg.connect(database_url) as conn:  # as a restore without foreign keys would leave it
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM chunks WHERE text = 'One.'")
    assert done(world, "orphans").counts == {"chunks": 0, "vectors": 1, "codes": 1}
    assert [len(fetch(world, f"SELECT FROM {table}")) for table in ("vectors_1", "tokens_1")] == [1, 1]  # noqa: S608


def test_blobs_that_nothing_refers_to_go_after_their_grace(world: World) -> None:
    world.add("a", "held")
    (held,) = [key for (key,) in fetch(world, "SELECT blob_key FROM versions")]
    loose = world.blobs.put(b"loose")
    assert done(world, "blobs", grace_s=3600).counts == {"blobs": 0}
    for number, dry_run in enumerate((True, False)):
        assert done(world, "blobs", grace_s=-1, dry_run=dry_run).counts == {"blobs": 1}
        assert [world.blobs.has(key) for key in (held, loose)] == [True, number == 0]


# --- profiles, graphs, dead rows ------------------------------------------------------------------------------------


def test_a_profile_that_was_live_is_brought_up_to_now(world: World, kept: Target) -> None:
    world.add("a", "One.")
    flip(world.store, kept, Why("profile.promote", Actor("service:test")))
    there = World(world.store, world.blobs, world.tenant_id, kept.profile, kept.embedder)
    there.add("b", "Two.")
    assert done(world, "profiles", dry_run=True).counts == {"documents": 1}
    shelf = Shelf(lambda model, precision: world.embedder)
    (report,) = run(Upkeep(world.store, world.blobs, lambda p: shelf.fitting(None, p)), ["profiles"])
    assert report.counts == {"documents": 1}
    assert done(world, "profiles").counts == {"documents": 0}


def settled(look: Callable[[], bool]) -> bool:
    """Whether it came to be so within some seconds: the server's statistics come late."""
    until = time.monotonic() + 10
    while not look() and time.monotonic() < until:
        time.sleep(0.1)
    return look()


def test_dead_rows_are_vacuumed_and_graphs_built_anew_beside_readers(
    world: World, searcher: Searcher, database_url: str
) -> None:
    for number in range(12):
        world.add(f"d{number}", f"The text number {number} of the heron.")
    build_graph(database_url, world.profile, world.tenant_id, 12)
    graph = fetch(world, "SELECT indexrelid::regclass::text, indexrelid FROM pg_index i JOIN pg_class c ON c.oid = "
                         "indexrelid JOIN pg_am m ON m.oid = relam WHERE amname = 'hnsw'")  # fmt: skip
    with writing(world.store) as conn:
        ids = [row[0] for row in conn.execute("SELECT id FROM documents")]
        for document_id in ids:
            documents.change_labels(conn, world.tenant_id, document_id, Labels((ANA,), (), "internal"))

    def dead() -> bool:
        with alone(world.store) as conn:
            conn.execute("SELECT pg_stat_force_next_flush()")
            return any(worn.table == "vectors_1" for worn in upkeep.worn(conn, 0.1, 5))

    assert settled(dead)
    told: list[str] = []
    how: dict[str, Any] = {"least_dead": 5, "dead_share": 0.1}
    assert done(world, "reindex", dry_run=True, **how).counts == {"vectors_1": 1}
    before = search(searcher, world.who(ANA), SearchRequest("heron"))
    for step in ("reindex", "vacuum"):
        assert done(world, step, say=told.append, **how).counts["vectors_1"] > 0
        assert search(searcher, world.who(ANA), SearchRequest("heron")).context == before.context
    assert [line.split()[1] for line in told if "vectors_1" in line] == ["reindex", "vacuum"]
    anew = fetch(world, "SELECT indexrelid::regclass::text, indexrelid FROM pg_index i JOIN pg_class c ON c.oid = "
                        "indexrelid JOIN pg_am m ON m.oid = relam WHERE amname = 'hnsw' AND indisvalid")  # fmt: skip
    assert [name for name, _ in anew] == [name for name, _ in graph] and anew != graph
    assert settled(lambda: not dead())


def test_one_upkeep_at_a_time(world: World) -> None:
    with upkeep.only_one(world.store) as mine:
        assert mine
        with pytest.raises(Conflict, match="another upkeep"):
            done(world, "orphans")
    assert done(world, "orphans").step == "orphans"


def test_every_step_runs_and_says_what_it_did(world: World) -> None:
    world.add("a", "One.")
    reports = list(run(Upkeep(world.store, world.blobs, no_model), tuple(STEPS)))
    assert [report.step for report in reports] == list(STEPS)


def test_the_schedule_runs_every_step_on_a_queue_of_its_own(world: World, pipeline: Pipeline) -> None:
    told = keep_up(pipeline, 3600)
    assert [line.split(":")[0] for line in told.split("; ")] == list(STEPS) and "skipped" not in told
    with upkeep.only_one(world.store):
        assert keep_up(pipeline, 3600) == "busy"
    entry = make_app(Settings()).conf.beat_schedule["sweep"]
    assert entry["task"] == SWEEP and routes()[SWEEP] == {"queue": QUEUES["upkeep"]}
