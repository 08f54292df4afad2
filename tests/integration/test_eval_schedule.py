"""Scheduled evaluations: due once, run as jobs, kept as runs, alarms as events and gauges."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from click.testing import CliRunner

from api.metrics import TenantMetrics
from api.service import Service
from cli.main import citadel
from core.config import Settings
from core.errors import Conflict, Invalid, NotFound, StoreUnavailable
from core.records import Job, Principal
from embedded.server import Server
from eval import schedule
from eval.gate import Limits
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.record import keep_golden
from eval.schedule import Evaluating, Wanted
from ingest.schedule import Plan
from retrieval.search import Searcher
from store import jobs, runs, schedules
from store.audit import Actor, export
from store.broker import QUEUES, RedisBroker
from store.pool import writing
from tests.conftest import World
from tests.integration.conftest import ANA, BEN
from tests.integration.serving import NoBroker
from workers.app import make_app
from workers.dispatch import dispatch_once
from workers.tasks import TASKS

BY = Actor("service:test")


def set_of(numbers: int = 12, forbidden: tuple[str, ...] = ()) -> GoldenSet:
    return GoldenSet("acme", "", tuple(
        GoldenQuery(f"q{n}", f"How long is parental leave? {n}", BEN, (Judgement("leave.md"),), forbidden)
        for n in range(numbers)
    ))  # fmt: skip


@pytest.fixture
def filled(world: World) -> World:
    """A golden set, and the document that answers it."""
    world.groups({"group:staff": [ANA, BEN]})
    world.add("leave.md", "Parental leave is 26 weeks.", ("group:staff",))
    keep_golden(world.store, world.tenant_id, set_of())
    return world


@pytest.fixture
def work(filled: World, searcher: Searcher) -> Evaluating:
    """A process that evaluates, with the test's searcher."""

    @contextmanager
    def opening(settings: Settings) -> Iterator[Searcher]:
        assert settings.search_deadline_s == settings.late_box_s == schedule.UNHURRIED_S
        yield searcher

    return Evaluating(filled.store, 60, Settings(), opening)


def wanted(**more: Any) -> Wanted:
    told: dict[str, Any] = {"name": "nightly", "golden": "acme", "timing": Plan("0 6 * * *"), "baseline": None,
                            "cutoffs": (1, 10), "measures": "", "limits": Limits({"nDCG@10": 0.01})}  # fmt: skip
    return Wanted(**told | more)


def ran(world: World, work: Evaluating, outcome: str = "done") -> Job:
    """Ask for a run, and do it."""
    job_id = schedule.request(world.store, world.tenant_id, "nightly", BY)
    assert schedule.attempt(work, job_id) == outcome
    with writing(world.store) as conn:
        return jobs.get(conn, job_id)


def last(world: World) -> schedules.Result:
    with writing(world.store) as conn:
        (found,) = schedules.latest(conn, world.tenant_id).values()
        return found


def events(world: World) -> list[dict[str, Any]]:
    with writing(world.store) as conn:
        return [row.detail for row in export(conn, world.tenant_id, None, None) if row.action == "eval.alarm"]


def long_due(world: World) -> None:
    with writing(world.store) as conn:
        conn.execute("UPDATE eval_schedules SET next_due_at = now() - interval '1 minute'")


# --- when ---------------------------------------------------------------------------------------------------------


def test_three_schedulers_start_what_is_due_once(filled: World) -> None:
    added = schedule.add(filled.store, filled.tenant_id, wanted(), BY)
    assert schedule.schedule_due(filled.store) == 0  # not due yet
    for _ in range(3):
        long_due(filled)
        with ThreadPoolExecutor(3) as pool:
            counts = list(pool.map(schedule.schedule_due, [filled.store] * 3))
        with writing(filled.store) as conn:
            opened = [job for job in jobs.recent(conn, filled.tenant_id, None, 9) if job.kind == "eval"]
            assert schedules.by_id(conn, added.id).next_due_at == added.next_due_at
        assert sum(counts) in (0, 1) and len(opened) == 1  # the second time the first one is still open


def test_a_due_run_goes_through_the_queue_of_its_kind(filled: World, empty_redis: Server) -> None:
    client = redis.Redis.from_url(empty_redis.url)
    schedule.add(filled.store, filled.tenant_id, wanted(), BY)
    long_due(filled)
    assert schedule.schedule_due(filled.store) == 1
    app = make_app(Settings(redis_url=empty_redis.url))
    assert dispatch_once(filled.store, RedisBroker(empty_redis.url), app) == 1
    (message,) = [json.loads(raw) for raw in client.lrange(QUEUES["eval"], 0, -1)]  # type: ignore[union-attr]
    assert message["headers"]["task"] == TASKS["eval"]
    app.close()
    client.close()


def test_what_cannot_be_scheduled_is_said(filled: World, work: Evaluating) -> None:
    def adding(**more: Any) -> Callable[[], Any]:
        return lambda: schedule.add(filled.store, filled.tenant_id, wanted(**more), BY)

    for call, error, told in (
        (adding(golden="absent"), NotFound, "golden import"), (adding(timing=Plan("at six")), Invalid, "cron"),
        (adding(timing=Plan("0 6 * * *", "Mars")), Invalid, "time zone"),
        (adding(baseline="main"), NotFound, "no finished"),
        (adding(limits=Limits({"nDCG@5": 0.1})), Invalid, "nDCG@5: no such measure"),
        (adding(measures="Nope"), Invalid, "unknown measure"),
    ):  # fmt: skip
        with pytest.raises(error, match=told):
            call()
    adding()()
    with pytest.raises(Conflict, match="remove it first"):
        adding()()
    ran(filled, work)
    keep_golden(filled.store, filled.tenant_id, set_of(13))
    with pytest.raises(Invalid, match="is of acme@1, not of acme@2"):
        adding(name="other", baseline="nightly")()
    schedule.remove(filled.store, filled.tenant_id, "nightly", BY)
    with writing(filled.store) as conn:
        assert runs.named(conn, filled.tenant_id, "nightly")  # its runs stay
    with pytest.raises(NotFound, match="schedule list"):
        schedule.request(filled.store, filled.tenant_id, "nightly", BY)


# --- what ---------------------------------------------------------------------------------------------------------


def test_a_run_is_kept_and_a_loss_is_an_alarm(filled: World, work: Evaluating) -> None:
    schedule.add(filled.store, filled.tenant_id, wanted(measures="AP@5"), BY)
    job = ran(filled, work)
    assert job.state == "done" and job.detail["alarms"] == [] and not events(filled)
    first = last(filled)
    assert [check.name for check in first.checks] == ["forbidden", "nDCG@10"] and first.checks[1].value == 1
    with writing(filled.store) as conn:
        kept = runs.named(conn, filled.tenant_id, "nightly")
        schedules.remove(conn, filled.tenant_id, "nightly")
    assert str(kept.id) == job.detail["run"] and kept.summary is not None and "AP@5" in kept.summary["measures"]

    schedule.add(filled.store, filled.tenant_id, wanted(baseline=str(kept.id)), BY)
    filled.add("leave.md", "Nothing about it any more.", ("group:staff",))
    for n in range(12):
        filled.add(f"noise{n}.md", f"How long is parental leave? {n} {n} {n}", ("group:staff",))
    worse = ran(filled, work)
    assert (worse.state, worse.detail["alarms"]) == ("done", ["nDCG@10"])
    (event,) = events(filled)
    assert event["golden"] == "acme@1" and [alarm["name"] for alarm in event["alarms"]] == ["nDCG@10"]
    assert "against nightly: nDCG@10 changed by -" in event["alarms"][0]["told"]


def test_a_forbidden_document_is_an_alarm(filled: World, work: Evaluating) -> None:
    keep_golden(filled.store, filled.tenant_id, set_of(2, ("leave.md",)))  # 2 questions are too few for any gate
    schedule.add(filled.store, filled.tenant_id, wanted(), BY)
    assert ran(filled, work).detail["alarms"] == ["forbidden"]
    assert last(filled).checks[0].value == 2 and len(events(filled)) == 1


def test_a_baseline_of_other_questions_is_an_alarm(filled: World, work: Evaluating) -> None:
    schedule.add(filled.store, filled.tenant_id, wanted(), BY)
    pinned = ran(filled, work).detail["run"]
    schedule.remove(filled.store, filled.tenant_id, "nightly", BY)
    schedule.add(filled.store, filled.tenant_id, wanted(baseline=pinned), BY)
    keep_golden(filled.store, filled.tenant_id, set_of(13))
    assert ran(filled, work).detail["alarms"] == ["baseline"]
    assert "is of acme@1, this run of acme@2" in last(filled).alarms()[0].told


def test_what_keeps_a_run_from_running_is_on_its_job(filled: World, work: Evaluating) -> None:
    schedule.add(filled.store, filled.tenant_id, wanted(), BY)

    @contextmanager
    def away(settings: Settings) -> Iterator[Searcher]:
        raise StoreUnavailable("Postgres is away")
        yield

    waiting = ran(filled, Evaluating(filled.store, 60, Settings(), away), "waits")
    assert (waiting.state, waiting.attempts, waiting.error_code) == ("accepted", 0, "store_unavailable")
    with writing(filled.store) as conn:
        conn.execute("DELETE FROM golden_queries")
        conn.execute("UPDATE jobs SET next_try_at = now()")
    assert schedule.attempt(work, waiting.id) == "failed"
    with writing(filled.store) as conn:
        assert "no question left" in (jobs.get(conn, waiting.id).error or "")


# --- who is told --------------------------------------------------------------------------------------------------


def test_only_who_sees_all_is_told_of_it(filled: World, work: Evaluating, searcher: Searcher) -> None:
    schedule.add(filled.store, filled.tenant_id, wanted(), BY)
    job = ran(filled, work)
    service, metrics = Service(filled.store, filled.blobs, searcher, NoBroker(), 2**20), TenantMetrics(filled.tenant_id)
    told = metrics.render(service, None).decode()
    line = 'citadel_eval_{}{{golden="acme",measure="nDCG@10",schedule="nightly"}} {}'
    assert line.format("value", "1.0") in told and line.format("alarm", "0.0") in told
    assert "nightly" not in metrics.render(service, Principal(filled.tenant_id, BEN)).decode()
    assert "nightly" not in TenantMetrics(UUID(int=1)).render(service, None).decode()
    with writing(filled.store) as conn:
        with pytest.raises(NotFound):
            jobs.get(conn, job.id, in_scope=True)
        assert not [each for each in jobs.recent(conn, filled.tenant_id, None, 9, in_scope=True) if each.kind == "eval"]


def test_the_commands(
    filled: World, work: Evaluating, database_url: str, app_url: str, maintenance_url: str, tmp_path: Path
) -> None:
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MODEL": "fake",
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path)}  # fmt: skip

    def run(*arguments: str) -> Any:
        asked = ["eval", "schedule", *arguments]
        return CliRunner().invoke(citadel, asked, env=env, catch_exceptions=False)

    added = run("add", "--golden", "acme", "--cron", "@daily", "--tz", "Europe/Berlin", "--name", "nightly")
    assert added.exit_code == 0 and added.stdout.startswith("nightly: next at ")
    assert run("add", "--golden", "acme", "--cron", "@daily", "--name", "nightly").exit_code == 2
    job_id = UUID(json.loads(run("run", "nightly", "--json").stdout)["job_id"])
    keep_golden(filled.store, filled.tenant_id, set_of(3, ("leave.md",)))
    assert schedule.attempt(work, job_id) == "done"
    listed = run("list").stdout
    assert "Europe/Berlin" in listed and "ALARM  nightly: forbidden: 3 forbidden documents returned" in listed
    (told,) = json.loads(run("list", "--json").stdout)["schedules"]
    assert told["last"]["checks"][0] == {"name": "forbidden", "value": 3, "alarm": True,
                                         "told": "3 forbidden documents returned"}  # fmt: skip
    assert run("remove", "nightly").exit_code == 0 and run("list").stdout.strip() == "nothing"
