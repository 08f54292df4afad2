"""What an operator does to jobs and sources, room for more work, and bytes that nothing names."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result

from cli.main import citadel
from cli.up import children
from core.config import Settings, environment_of
from core.errors import Conflict, Invalid, LeaseLost, Overloaded, StoreUnavailable
from core.records import Labels, Submission
from ingest.attempt import attempt
from ingest.pipeline import Pipeline
from ingest.room import LOOK_EVERY_S, Room
from ingest.schedule import add_folder, pause, request_refresh, resume, schedule_due
from ingest.submit import change_labels, submit
from ingest.sweep import sweep_blobs
from store import jobs, operations, turns
from store.audit import Actor
from store.pool import writing
from tests.conftest import Api, World
from tests.integration.conftest import Site
from tests.integration.test_jobs import claim, claimed, job, make_due, version_state
from workers import dispatch

BY = Actor("service:test", None, uuid4())
READ_AUDIT = "SELECT action, actor, outcome, resource, request_id, detail FROM audit_log ORDER BY seq"


def audited(world: World, action: str) -> list[tuple[object, ...]]:
    with writing(world.store) as conn:
        return [row[1:] for row in conn.execute(READ_AUDIT).fetchall() if row[0] == action]


def cancel(world: World, *job_ids: UUID | None) -> int:
    with writing(world.store) as conn:
        return operations.cancel(conn, world.tenant_id, [each for each in job_ids if each], BY)


# --- cancel ---------------------------------------------------------------------------------------------------------


def test_a_waiting_job_that_is_cancelled_is_never_done(world: World, pipeline: Pipeline) -> None:
    submitted = world.submit("a.txt", "text")
    assert cancel(world, submitted.job_id) == 1
    ended = job(world, submitted.job_id)
    assert (ended.state, ended.error_code, ended.error) == ("cancelled", "cancelled", "cancelled by service:test")
    assert submitted.job_id and attempt(pipeline, submitted.job_id) == "skipped"
    assert version_state(world, submitted.document_id, 1) == "failed"
    assert cancel(world, submitted.job_id) == 0
    assert audited(world, "job.cancel") == [
        ("service:test", "ok", None, BY.request_id, {"jobs": [str(submitted.job_id)], "count": 1})
    ]
    assert world.submit("a.txt", "text").version == 2  # what was cancelled may be submitted again


def test_work_on_a_cancelled_job_stops_at_its_next_commit(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    lease = world.claim(submitted)
    assert cancel(world, submitted.job_id) == 1
    with pytest.raises(LeaseLost), writing(world.store) as conn:
        jobs.set_state(conn, lease, "embedding")
    assert job(world, submitted.job_id).state == "cancelled"


def test_a_cancelled_job_can_be_tried_again(world: World, pipeline: Pipeline) -> None:
    submitted = world.submit("a.txt", "text")
    cancel(world, submitted.job_id)
    with writing(world.store) as conn:
        assert submitted.job_id and operations.retry(conn, world.tenant_id, [submitted.job_id], BY) == 1
    assert attempt(pipeline, submitted.job_id) == "done"
    assert len(audited(world, "job.retry")) == 1


def test_what_is_done_or_another_tenants_is_not_cancelled(world: World, neighbour: World) -> None:
    done, theirs = world.add("a.txt", "text"), neighbour.submit("b.txt", "text")
    assert cancel(world, done.job_id, theirs.job_id) == 0
    assert (job(world, done.job_id).state, job(world, theirs.job_id).state) == ("done", "accepted")
    assert audited(world, "job.cancel") == []


def test_the_routes_cancel_and_retry_for_full_operators_alone(api: Api, neighbour: World) -> None:
    waiting, done = api.world.submit("a.txt", "text").job_id, api.world.add("b.txt", "text").job_id
    theirs = neighbour.submit("c.txt", "text").job_id
    operator, writer = api.key("op", "operate"), api.key("in", "ingest")
    for change, state in (("cancel", "cancelled"), ("cancel", "cancelled"), ("retry", "accepted")):
        assert api.http.post(f"/v1/jobs/{waiting}/{change}", headers=writer).status_code == 403
        answer = api.http.post(f"/v1/jobs/{waiting}/{change}", headers=operator)
        assert (answer.status_code, answer.json()["state"]) == (200, state)
        assert api.http.post(f"/v1/jobs/{done}/{change}", headers=operator).status_code == 409
        for absent in (theirs, uuid4()):
            assert api.http.post(f"/v1/jobs/{absent}/{change}", headers=operator).status_code == 404
    assert answer.json()["next_try_at"] is not None and job(neighbour, theirs).state == "accepted"
    assert [row[0] for row in audited(api.world, "job.cancel")] == ["service:op"]


# --- several at once ------------------------------------------------------------------------------------------------


def run(world: World, tmp_path: Path, *arguments: str, input: str | None = None) -> Result:
    """A command against the world's database."""
    with world.store.maintenance.connection() as conn:
        info = conn.info
        where = f"{info.host}:{info.port}/{info.dbname}"
    urls = {
        f"CITADEL_{role.upper()}_DATABASE_URL": f"postgresql://citadel_{role}:{role}-password@{where}"
        for role in ("app", "maintenance")
    }
    environment = {**urls, "CITADEL_STATE": str(tmp_path), "CITADEL_BLOB_URL": (tmp_path / "blobs").as_uri()}
    return CliRunner().invoke(citadel, arguments, env=environment, input=input, prog_name="citadel")


def quarantined(world: World, name: str, source: str = "api") -> UUID:
    job_id = world.submit(name, f"text of {name}", source=source).job_id
    assert job_id
    for _ in range(3):
        claimed(world, job_id, -1)
    with writing(world.store) as conn:
        jobs.quarantine_spent(conn)
    return job_id


def test_retry_takes_what_fits_asks_and_says_how_many(world: World, tmp_path: Path) -> None:
    ours, other = [quarantined(world, f"{n}.txt", "wiki") for n in range(3)], quarantined(world, "x.txt")
    failed = world.submit("y.txt", "text", source="wiki").job_id
    with writing(world.store) as conn:
        jobs.fail(conn, claimed(world, failed), "corrupt_document", "it is cut off")
    choice = ("jobs", "retry", "--state", "quarantined", "--source", "wiki", "--error", "worker_lost")
    asked = run(world, tmp_path, *choice, input="n\n")
    assert asked.exit_code == 1 and "try again 3 jobs?" in asked.stderr
    assert {job(world, each).state for each in ours} == {"quarantined"}
    done = run(world, tmp_path, *choice, "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"jobs": 3})
    assert {job(world, each).state for each in ours} == {"accepted"}
    assert (job(world, other).state, job(world, failed).state) == ("quarantined", "failed")
    assert run(world, tmp_path, "jobs", "retry", str(other)).exit_code == 0
    assert run(world, tmp_path, "jobs", "retry", str(other)).exit_code == 2  # it waits already
    assert run(world, tmp_path, "jobs", "retry").exit_code == 2
    cancelled = run(world, tmp_path, "jobs", "cancel", "--source", "wiki", "--yes")
    assert cancelled.exit_code == 0 and "3 jobs" in cancelled.stdout


def test_jobs_alone_says_how_much_waits_and_why(world: World, pipeline: Pipeline, tmp_path: Path) -> None:
    submitted = world.submit("a.txt", "text")
    (tmp_path / "blobs").rename(tmp_path / "away")
    assert submitted.job_id and attempt(pipeline, submitted.job_id) == "waits"
    (tmp_path / "away").rename(tmp_path / "blobs")
    world.submit("b.txt", "text")
    found = json.loads(run(world, tmp_path, "jobs", "--json").stdout)["jobs"]
    assert {(p["kind"], p["state"], p["error_code"], p["jobs"]) for p in found} == {
        ("index", "accepted", "blob_unavailable", 1), ("index", "accepted", "", 1)
    }  # fmt: skip
    told = run(world, tmp_path, "jobs", "list").stdout
    assert "0 (+1 waited)" in told and "cannot be read" in told and "next try" in told


def test_a_refresh_that_is_waited_for_says_what_was_not_indexed(site: Site, tmp_path: Path) -> None:
    from cli.sources import not_indexed

    site.write("good.md", "text")
    site.write("bad.pdf", b"%PDF-1.7\n1 0 obj\n")
    done = site.refresh()
    bad = not_indexed(site.world.store, site.world.tenant_id, site.source, done)
    assert [(each.state, each.error_code) for each in bad] == [("failed", "corrupt_document")]
    again = site.refresh()
    assert not_indexed(site.world.store, site.world.tenant_id, site.source, again) == []


def test_a_queue_that_there_is_not_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITADEL_REDIS_URL", "redis://127.0.0.1:1/0")
    told = run(world, tmp_path, "worker", "--queues", "index,parse")
    assert told.exit_code == 2 and "index, refresh, upkeep" in told.stderr


def test_the_clock_is_given_no_databases_credential(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, maintenance_database_url="postgresql://m:m-word@db/x", redis_url="redis://r",
                        app_database_url="postgresql://a:a-word@db/x", app_password="a-word")  # fmt: skip
    started = {child.name: child.env for child in children(settings, environment_of(settings))}
    assert "m-word" in started["dispatcher"]["CITADEL_MAINTENANCE_DATABASE_URL"]
    assert started["beat"]["CITADEL_REDIS_URL"] == "redis://r" and "-word" not in str(started["beat"])


# --- pause ----------------------------------------------------------------------------------------------------------


def test_a_paused_source_is_not_refreshed_and_goes_on_where_it_stopped(site: Site) -> None:
    world = site.world
    site.write("a.md", "text")
    waiting = request_refresh(world.store, world.tenant_id, site.source_id)
    running = claimed(world, waiting)
    assert pause(world.store, world.tenant_id, "files", by=BY).paused_at is not None
    with pytest.raises(LeaseLost), writing(world.store) as conn:
        jobs.hold(conn, running)
    assert (job(world, waiting).state, job(world, waiting).attempts) == ("accepted", 0)
    assert claim(world, waiting) is None
    with writing(world.store) as conn:
        assert turns.take_unsent(conn, "refresh", 10, 0, 0) == []
        conn.execute("UPDATE sources SET schedule = '* * * * *', next_due_at = now() WHERE id = %s", (site.source_id,))
    assert schedule_due(world.store) == 0
    with pytest.raises(Conflict, match="resume"):
        request_refresh(world.store, world.tenant_id, site.source_id)
    assert resume(world.store, world.tenant_id, "files", by=BY).paused_at is None
    assert attempt(site.pipeline, waiting) == "done"
    assert schedule_due(world.store) == 1  # what fell due meanwhile
    assert [row[4] for row in audited(world, "source.change")] == [
        {"paused": True, "suspended": True}, {"paused": False, "suspended": False}
    ]  # fmt: skip


# --- outages --------------------------------------------------------------------------------------------------------


def test_faults_wait_ever_longer_and_to_an_end_and_are_forgotten_by_an_attempt(world: World) -> None:
    job_id = world.submit("a.txt", "text").job_id
    for number, seconds in enumerate((*jobs.FAULT_BACKOFF_S, jobs.FAULT_BACKOFF_S[-1]), start=1):
        with writing(world.store) as conn:
            jobs.give_back(conn, claimed(world, job_id), "blob_unavailable", "away")
        waiting = job(world, job_id)
        assert (waiting.attempts, waiting.faults) == (0, number) and waiting.next_try_at
        delay = (waiting.next_try_at - waiting.updated_at).total_seconds()
        assert 0.75 * seconds <= delay <= 1.25 * seconds
        make_due(world, job_id)
    with writing(world.store) as conn:
        jobs.retry_or_quarantine(conn, claimed(world, job_id), "internal", "unforeseen")
    assert (job(world, job_id).attempts, job(world, job_id).faults) == (1, 0)


def test_an_outcome_waits_for_a_postgres_that_is_away(
    world: World, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the lease would run out, and the outage would count as an attempt."""
    submitted = world.submit("a.txt", "text")
    (tmp_path / "blobs").rename(tmp_path / "away")
    refused = [0]
    honest = jobs.give_back

    def away(*arguments: object, **named: object) -> None:
        refused[0] += 1
        if refused[0] < 3:
            raise StoreUnavailable("Postgres did not answer")
        honest(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("ingest.endings.AWAY_S", 0.01)
    monkeypatch.setattr(jobs, "give_back", away)
    assert submitted.job_id and attempt(pipeline, submitted.job_id) == "waits"
    assert refused == [3] and job(world, submitted.job_id).attempts == 0


# --- room -----------------------------------------------------------------------------------------------------------


def test_there_is_room_until_the_limit_and_again_below_it(world: World) -> None:
    seconds = [0.0]
    room = Room(3, lambda: seconds[0])
    submitted = []
    for n in range(3):
        room.check(world.store, world.tenant_id)
        seconds[0] += LOOK_EVERY_S
        submitted.append(world.submit(f"{n}.txt", f"text {n}"))
    with pytest.raises(Overloaded, match="3 jobs"):
        room.check(world.store, world.tenant_id)
    room.check(world.store, uuid4())  # another tenant's does not count
    world.index(submitted[0])
    with pytest.raises(Overloaded):
        room.check(world.store, world.tenant_id)  # as of a second ago
    seconds[0] += LOOK_EVERY_S
    room.check(world.store, world.tenant_id)
    with pytest.raises(Overloaded):
        room.check(world.store, world.tenant_id, 0.5)


def test_a_refresh_stops_for_want_of_room_and_goes_on_without_reading_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.room.LOOK_EVERY_S", 0.0)
    for n in range(8):
        site.write(f"{n}.md", f"text {n}")
    small = replace(site.pipeline, max_backlog=4)
    world = site.world
    job_id = request_refresh(world.store, world.tenant_id, site.source_id)
    brought, tries = [], 0
    while (outcome := attempt(small, job_id)) != "done":
        tries += 1
        assert outcome == "waits" and job(world, job_id).error_code == "overloaded" and job(world, job_id).attempts == 0
        with writing(world.store) as conn:
            assert jobs.count_open(conn, world.tenant_id) <= 4  # and with it the refresh itself
        brought.append(len(site.documents()))
        assert set(site.index().values()) <= {"done"}
        make_due(world, job_id)
    assert brought[0] == 3 and len(site.documents()) == 8
    assert job(world, job_id).detail["counts"] == {"new": 8} and tries < 6


def test_submissions_beyond_the_limit_are_refused_with_retry_after(api: Api) -> None:
    writer = api.key("in", "ingest")
    service = api.http.app.state.service  # type: ignore[attr-defined]
    api.http.app.state.service = replace(service, room=Room(1))  # type: ignore[attr-defined]
    body = {"external_id": "a", "text": "text", "labels": {"allow": ["public"]}}
    assert api.http.post("/v1/documents", headers=writer, json=body).status_code == 202
    time.sleep(LOOK_EVERY_S)
    refused = api.http.post("/v1/documents", headers=writer, json={**body, "external_id": "b"})
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["code"] == "overloaded"


# --- the audit's row and the change are one -------------------------------------------------------------------------


def accepted(world: World, labels: Labels) -> UUID:
    submission = Submission("a", b"text", labels)
    kept = submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None, by=BY)
    return kept.document_id


def test_submissions_and_labels_are_in_the_audit_with_their_commit(world: World) -> None:
    document_id = accepted(world, Labels(("public",)))
    change_labels(world.store, world.tenant_id, document_id, Labels(("group:hr",)), None, by=BY)
    assert audited(world, "submit") == [("service:test", "accepted", f"document:{document_id}@1", BY.request_id, {})]
    ((_, _, resource, _, detail),) = audited(world, "label.change")
    assert resource == f"document:{document_id}" and isinstance(detail, dict) and detail["allow"] == ["group:hr"]


def test_sources_and_requests_are_in_the_audit(site: Site) -> None:
    world = site.world
    added = add_folder(world.store, world.tenant_id, "more", {"path": "/x"}, Labels(), None, 0.5, by=BY)
    request_refresh(world.store, world.tenant_id, added.id, by=BY)
    ((who, _, resource, _, detail),) = audited(world, "source.change")
    assert (who, resource) == ("service:test", "source:more") and isinstance(detail, dict)
    assert detail["added"] == "folder"
    assert [row[2] for row in audited(world, "refresh.request")] == ["source:more"]


def test_without_the_audits_row_nothing_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    document_id = accepted(world, Labels(("public",)))

    def refused(*arguments: object, **more: object) -> None:
        raise StoreUnavailable("the audit took no row")

    monkeypatch.setattr("store.audit.add", refused)
    with pytest.raises(StoreUnavailable):
        change_labels(world.store, world.tenant_id, document_id, Labels(("group:hr",)), None, by=BY)
    with pytest.raises(StoreUnavailable):
        submission = Submission("b", b"text", Labels(("public",)))
        submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None, by=BY)
    with writing(world.store) as conn:
        rows = conn.execute("SELECT external_id, allow FROM documents d JOIN label_sets l ON l.id = d.label_set_id")
        assert rows.fetchall() == [("a", ["public"])]


# --- bytes that nothing names ---------------------------------------------------------------------------------------


def age(tmp_path: Path, seconds: float) -> None:
    for path in (tmp_path / "blobs").rglob("*"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_bytes_of_refused_submissions_go_after_their_grace_and_no_others(
    world: World, pipeline: Pipeline, tmp_path: Path
) -> None:
    kept = world.submit("a.txt", "text that is kept")
    with pytest.raises(Invalid):
        accepted(world, Labels(("public",), classification="cosmic"))
    orphan = world.blobs.put(b"text")
    unfinished = tmp_path / "blobs" / orphan[:2] / f"{orphan}.0123.part"
    unfinished.write_bytes(b"te")
    assert sweep_blobs(world.store, world.blobs, 3600) == 0 and world.blobs.has(orphan)
    age(tmp_path, 7200)
    assert sweep_blobs(world.store, world.blobs, 3600) == 2
    assert not world.blobs.has(orphan) and not unfinished.exists()
    assert kept.job_id and attempt(pipeline, kept.job_id) == "done"


# --- a message that others overtook ---------------------------------------------------------------------------------


def test_a_message_that_was_overtaken_counts_as_lost_at_once(world: World) -> None:
    lost, running = world.submit("a.txt", "text").job_id, world.submit("b.txt", "text").job_id
    with writing(world.store) as conn:
        assert turns.take_unsent(conn, "index", 10, 900, dispatch.OVERTAKEN_S) == [lost, running]
        seconds = dispatch.OVERTAKEN_S + 1
        conn.execute("UPDATE jobs SET dispatched_at = now() - make_interval(secs => %s) WHERE id = %s", (seconds, lost))
        assert turns.take_unsent(conn, "index", 10, 900, dispatch.OVERTAKEN_S) == []
    claimed(world, running)
    with writing(world.store) as conn:
        assert turns.take_unsent(conn, "index", 10, 900, dispatch.OVERTAKEN_S) == [lost]
        assert turns.take_unsent(conn, "index", 10, 900, dispatch.OVERTAKEN_S) == []
