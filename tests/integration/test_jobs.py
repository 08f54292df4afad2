"""Jobs: one worker at a time, attempts counted, a late worker changes nothing, and nothing is tried for ever."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.errors import Conflict, Invalid, LeaseLost, NotFound
from core.records import Job, Labels, Lease, Source
from ingest.heartbeat import heartbeat
from ingest.parsers.plain import parse_text
from ingest.pipeline import Pipeline
from ingest.schedule import add_folder, request_refresh, schedule_due
from store import chunks, jobs, sources
from store.pool import ALIVE, UNANSWERED_MS, writing
from tests.conftest import World

PAST = -1.0  # a lease of this many seconds ran out before it began


def job(world: World, job_id: UUID | None) -> Job:
    assert job_id is not None
    with writing(world.store) as conn:
        return jobs.get(conn, job_id)


def claim(world: World, job_id: UUID | None, lease_s: float = 60) -> Lease | None:
    assert job_id is not None
    with writing(world.store) as conn:
        return jobs.claim(conn, job_id, lease_s)


def claimed(world: World, job_id: UUID | None, lease_s: float = 60) -> Lease:
    lease = claim(world, job_id, lease_s)
    assert lease is not None
    return lease


def column(world: World, job_id: UUID | None, name: str) -> Any:
    with writing(world.store) as conn:
        row = conn.execute(f"SELECT {name}, now() FROM jobs WHERE id = %s".encode(), (job_id,)).fetchone()  # noqa: S608
    assert row is not None
    return row[0]


def now(world: World) -> datetime:
    """Postgres's own clock."""
    with writing(world.store) as conn:
        row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    return datetime.fromisoformat(str(row[0]))


def make_due(world: World, job_id: UUID | None) -> None:
    """As if its delay had passed."""
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET next_try_at = now() WHERE id = %s", (job_id,))


def run_out(world: World, job_id: UUID | None) -> None:
    """As if its lease had run out."""
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE id = %s", (job_id,))


def version_state(world: World, document_id: UUID, version: int) -> str:
    with writing(world.store) as conn:
        row = conn.execute(
            "SELECT state FROM versions WHERE document_id = %s AND version = %s", (document_id, version)
        ).fetchone()
    assert row is not None
    return str(row[0])


def quarantine_spent(world: World) -> int:
    with writing(world.store) as conn:
        return jobs.quarantine_spent(conn)


# --- the claim ------------------------------------------------------------------------------------------------------


def test_of_many_workers_one_gets_each_job(world: World) -> None:
    job_ids = [world.submit(f"{n}.txt", f"text {n}").job_id for n in range(10)]
    barrier = threading.Barrier(8)

    def work(_: int) -> list[Lease | None]:
        barrier.wait()
        return [claim(world, job_id) for job_id in job_ids]

    with ThreadPoolExecutor(8) as workers:
        leases = [lease for taken in workers.map(work, range(8)) for lease in taken if lease is not None]
    assert sorted(lease.job.id for lease in leases) == sorted(job_id for job_id in job_ids if job_id)
    assert len({lease.token for lease in leases}) == 10
    assert {job(world, job_id).attempts for job_id in job_ids} == {1}


def test_a_lease_begins_when_its_row_is_had(world: World) -> None:
    """As when a host vanished within its commit: its session holds the row until Postgres notices."""
    job_id, taken = world.submit("a", "text").job_id, list[Lease | None]()
    with writing(world.store) as conn:
        conn.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
        waiting = threading.Thread(target=lambda: taken.append(claim(world, job_id, 1.0)))
        waiting.start()
        time.sleep(1.2)  # longer than the lease
    waiting.join()
    assert taken[0] is not None and column(world, job_id, "lease_until > clock_timestamp()")
    assert claim(world, job_id) is None


def test_a_session_is_asked_whether_it_is_alive(world: World) -> None:
    with writing(world.store) as conn:
        assert [conn.execute(f"SHOW tcp_{name}".encode()).fetchone() for name in ALIVE] == [
            (str(value),) for value in ALIVE.values()
        ]
        assert conn.execute("SHOW tcp_user_timeout").fetchone() == (str(UNANSWERED_MS),)


def test_a_claim_says_what_it_holds(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    lease = claimed(world, submitted.job_id)
    assert (lease.job.state, lease.job.attempts, lease.job.kind) == ("parsing", 1, "index")
    assert (lease.job.document_id, lease.job.version) == (submitted.document_id, 1)
    until = column(world, submitted.job_id, "lease_until")
    assert timedelta(seconds=50) < until - now(world) <= timedelta(seconds=60)


def test_a_held_job_is_free_again_when_its_lease_runs_out(world: World) -> None:
    job_id = world.submit("a.txt", "text").job_id
    first = claimed(world, job_id, 0.3)
    assert claim(world, job_id) is None
    time.sleep(0.4)
    second = claimed(world, job_id)
    assert second.token > first.token and second.job.attempts == 2


@pytest.mark.parametrize("end", ["done", "failed", "quarantined"])
def test_a_job_at_its_end_is_not_claimed(world: World, end: str) -> None:
    job_id = world.submit("a.txt", "text").job_id
    lease = claimed(world, job_id)
    with writing(world.store) as conn:
        if end == "done":
            jobs.finish(conn, lease, 7)
        elif end == "failed":
            jobs.fail(conn, lease, "corrupt_document", "it is cut off")
        else:
            last = replace(lease, job=replace(lease.job, attempts=jobs.MAX_ATTEMPTS))
            jobs.retry_or_quarantine(conn, last, "blob_unavailable", "it is not there")
    assert job(world, job_id).state == end and claim(world, job_id) is None


def test_a_job_that_does_not_exist_is_not_claimed(world: World) -> None:
    assert claim(world, uuid4()) is None
    with pytest.raises(NotFound), writing(world.store) as conn:
        jobs.get(conn, uuid4())


# --- fencing --------------------------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_changes_nothing(world: World) -> None:
    submitted = world.submit("a.txt", "the first text")
    late = claimed(world, submitted.job_id, PAST)
    current = claimed(world, submitted.job_id)
    before = job(world, submitted.job_id)
    writes: list[Callable[[Any], object]] = [
        lambda conn: jobs.set_state(conn, late, "embedding"),
        lambda conn: jobs.hold(conn, late),
        lambda conn: jobs.finish(conn, late, 1),
        lambda conn: jobs.fail(conn, late, "x", "x"),
        lambda conn: jobs.retry_or_quarantine(conn, late, "x", "x"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost), writing(world.store) as conn:
            write(conn)
    with pytest.raises(LeaseLost):
        world.publish(late, parse_text(b"what the late worker read"), None)
    assert job(world, submitted.job_id) == before
    assert version_state(world, submitted.document_id, 1) == "pending"
    assert world.publish(current, parse_text(b"the first text"), None)
    with pytest.raises(LeaseLost):
        world.publish(late, parse_text(b"what the late worker read"), None)
    assert job(world, submitted.job_id).state == "done"


def test_a_lease_that_ran_out_and_that_nobody_took_still_publishes(world: World) -> None:
    """Starved is not stalled: the work is done, and nobody else does it."""
    submitted = world.submit("a.txt", "text")
    late = claimed(world, submitted.job_id, PAST)
    assert world.publish(late, parse_text(b"text"), None)
    assert job(world, submitted.job_id).state == "done"


def test_a_publication_holds_the_job_until_its_commit(world: World) -> None:
    """Between the check of the lease and the commit, nobody can take the job."""
    submitted = world.submit("a.txt", "text")
    lease = claimed(world, submitted.job_id, PAST)
    with ThreadPoolExecutor(1) as other:
        with writing(world.store) as conn:
            jobs.hold(conn, lease)
            claiming = other.submit(claim, world, submitted.job_id)
            with pytest.raises(TimeoutError):
                claiming.result(timeout=0.3)
            jobs.finish(conn, lease, 1)
        assert claiming.result(timeout=5) is None


# --- the heartbeat --------------------------------------------------------------------------------------------------


def test_a_heartbeat_keeps_the_lease_through_a_long_stage(world: World, pipeline: Pipeline) -> None:
    job_id = world.submit("a.txt", "text").job_id
    short = replace(pipeline, lease_s=0.6)
    lease = claimed(world, job_id, short.lease_s)
    with heartbeat(short.store, short.lease_s, lease):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert claim(world, job_id) is None
            time.sleep(0.1)
    time.sleep(0.8)
    assert claimed(world, job_id).token > lease.token  # and it does not beat on


def test_a_heartbeat_never_takes_a_lease_back(world: World, pipeline: Pipeline) -> None:
    job_id = world.submit("a.txt", "text").job_id
    short = replace(pipeline, lease_s=0.3)
    lost = claimed(world, job_id, PAST)
    taken = claimed(world, job_id, 60)
    until = column(world, job_id, "lease_until")
    with heartbeat(short.store, short.lease_s, lost):
        time.sleep(0.5)
    assert column(world, job_id, "lease_until") == until
    assert column(world, job_id, "lease_token") == taken.token


# --- retries --------------------------------------------------------------------------------------------------------


def test_a_job_is_put_back_with_a_growing_delay_and_then_quarantined(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    for attempt, delay in enumerate(jobs.BACKOFF_S[: jobs.MAX_ATTEMPTS - 1], start=1):
        lease = claimed(world, submitted.job_id)
        with writing(world.store) as conn:
            jobs.retry_or_quarantine(conn, lease, "blob_unavailable", "the store is away")
        put_back = job(world, submitted.job_id)
        assert (put_back.state, put_back.attempts) == ("accepted", attempt)
        assert (put_back.error_code, put_back.error) == ("blob_unavailable", "the store is away")
        waits = column(world, submitted.job_id, "next_try_at - now()")
        assert timedelta(seconds=delay - 5) < waits <= timedelta(seconds=delay)
        assert claim(world, submitted.job_id) is None  # not before
        make_due(world, submitted.job_id)
    last = claimed(world, submitted.job_id)
    with writing(world.store) as conn:
        jobs.retry_or_quarantine(conn, last, "blob_unavailable", "the store is away")
    assert job(world, submitted.job_id).state == "quarantined"
    assert version_state(world, submitted.document_id, 1) == "failed"
    assert list(jobs.BACKOFF_S[: jobs.MAX_ATTEMPTS - 1]) == [5, 30]  # seconds: the delays that the runbook names


def test_a_job_whose_worker_dies_each_time_is_quarantined_after_the_third(world: World) -> None:
    submitted = world.submit("poison.txt", "text")
    for attempt in (1, 2, 3):
        assert quarantine_spent(world) == 0
        assert claimed(world, submitted.job_id, PAST).job.attempts == attempt  # and its worker is never heard of again
    assert claim(world, submitted.job_id) is None
    assert quarantine_spent(world) == 1
    ended = job(world, submitted.job_id)
    assert (ended.state, ended.error_code, ended.attempts) == ("quarantined", "worker_lost", 3)
    assert ended.error is not None and "3 attempts" in ended.error
    assert version_state(world, submitted.document_id, 1) == "failed"
    assert quarantine_spent(world) == 0


def test_a_last_attempt_under_way_is_not_quarantined(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    for lease_s in (PAST, PAST, 60):
        lease = claimed(world, submitted.job_id, lease_s)
    assert quarantine_spent(world) == 0
    assert world.publish(lease, parse_text(b"text"), None)
    assert job(world, submitted.job_id).state == "done"


# --- trying again ---------------------------------------------------------------------------------------------------


def reopen(world: World, job_id: UUID | None, tenant_id: UUID | None = None) -> bool:
    assert job_id is not None
    with writing(world.store) as conn:
        return jobs.reopen(conn, tenant_id or world.tenant_id, job_id)


def fail(world: World, job_id: UUID | None) -> None:
    with writing(world.store) as conn:
        lease = jobs.claim(conn, job_id, 60) if job_id else None
        assert lease is not None
        jobs.fail(conn, lease, "corrupt_document", "it is cut off")


def test_a_failed_or_quarantined_job_can_be_tried_again_from_the_start(world: World) -> None:
    failed, spent = world.submit("a.txt", "text a"), world.submit("b.txt", "text b")
    fail(world, failed.job_id)
    for _ in range(3):
        claimed(world, spent.job_id, PAST)
    quarantine_spent(world)
    for submitted in (failed, spent):
        assert reopen(world, submitted.job_id)
        again = job(world, submitted.job_id)
        assert (again.state, again.attempts, again.error_code, again.error) == ("accepted", 0, None, None)
        assert version_state(world, submitted.document_id, 1) == "pending"
        assert world.index(submitted)
        assert job(world, submitted.job_id).attempts == 1


def test_what_is_open_or_done_or_anothers_is_not_opened_again(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    assert not reopen(world, submitted.job_id)  # accepted
    assert world.index(submitted)
    assert not reopen(world, submitted.job_id)  # done
    failed = world.submit("b.txt", "text")
    fail(world, failed.job_id)
    assert not reopen(world, failed.job_id, uuid4())
    assert not reopen(world, uuid4())
    assert job(world, failed.job_id).state == "failed"


def test_a_version_tried_again_does_not_open_what_was_closed_since(world: World) -> None:
    """Version 1 for everybody fails, version 2 for finance fails, version 1 is tried again: not for everybody."""
    first = world.submit("a.txt", "the first text", ("public",))
    fail(world, first.job_id)
    second = world.submit("a.txt", "the second text", ("group:finance",))
    fail(world, second.job_id)
    assert reopen(world, first.job_id)
    world.index(first)
    visible = world.scope("user:stranger@acme.example").label_set_ids
    with writing(world.store) as conn:
        row = conn.execute("SELECT label_set_id FROM documents WHERE id = %s", (first.document_id,)).fetchone()
    assert row is not None and row[0] not in visible


def test_an_older_version_tried_again_does_not_replace_a_newer_one(world: World) -> None:
    first = world.submit("a.txt", "the first text")
    fail(world, first.job_id)
    assert world.index(world.submit("a.txt", "the second text"))
    assert reopen(world, first.job_id)
    assert not world.publish(claimed(world, first.job_id), parse_text(b"the first text"), None)
    ended = job(world, first.job_id)
    assert (ended.state, ended.detail) == ("done", {"superseded": True})


# --- schedulers -----------------------------------------------------------------------------------------------------


def folder_source(world: World, schedule: str | None = "*/15 * * * *", name: str = "files") -> Source:
    return add_folder(world.store, world.tenant_id, name, {"path": "/nowhere"}, Labels(), schedule, 0.3)


def set_due(world: World, source: Source, at: datetime | None) -> None:
    with writing(world.store) as conn:
        sources.set_due(conn, source.id, at)


def due_at(world: World, source: Source) -> datetime | None:
    with writing(world.store) as conn:
        row = conn.execute("SELECT next_due_at FROM sources WHERE id = %s", (source.id,)).fetchone()
    assert row is not None
    return row[0] if row[0] is None else datetime.fromisoformat(str(row[0]))


def refreshes(world: World) -> list[Job]:
    with writing(world.store) as conn:
        return [each for each in jobs.recent(conn, world.tenant_id, None, 100) if each.kind == "refresh"]


def test_a_new_source_with_a_schedule_is_due_at_once_and_then_by_its_cron(world: World) -> None:
    source = folder_source(world)
    assert schedule_due(world.store) == 1
    following = due_at(world, source)
    assert following is not None
    assert following.minute % 15 == 0 and following.second == following.microsecond == 0
    assert timedelta(0) < following - datetime.now(UTC) <= timedelta(minutes=15)
    assert schedule_due(world.store) == 0


def test_a_source_without_a_schedule_is_refreshed_on_request_only(world: World) -> None:
    source = folder_source(world, None)
    assert schedule_due(world.store) == 0 and due_at(world, source) is None
    request_refresh(world.store, world.tenant_id, source.id)
    assert [each.source_id for each in refreshes(world)] == [source.id]


def test_three_schedulers_at_once_add_one_refresh_a_due_time(world: World) -> None:
    several = [folder_source(world, name=f"files-{n}") for n in range(5)]
    barrier = threading.Barrier(3)

    def beat(_: int) -> int:
        barrier.wait()
        return sum(schedule_due(world.store) for _ in range(5))

    with ThreadPoolExecutor(3) as schedulers:
        assert sum(schedulers.map(beat, range(3))) == 5
    assert sorted(str(each.source_id) for each in refreshes(world)) == sorted(str(each.id) for each in several)


def test_the_same_due_time_is_one_refresh_even_when_it_comes_back(world: World) -> None:
    """A clock that was set back, or a scheduler that committed late."""
    source = folder_source(world)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    set_due(world, source, at)
    assert schedule_due(world.store) == 1
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET state = 'done'")
    set_due(world, source, at)
    assert schedule_due(world.store) == 0 and len(refreshes(world)) == 1


def test_after_a_long_pause_there_is_one_refresh_not_one_for_each_missed_time(world: World) -> None:
    source = folder_source(world, "* * * * *")
    set_due(world, source, datetime.now(UTC) - timedelta(days=2))
    assert [schedule_due(world.store) for _ in range(3)] == [1, 0, 0]


def test_refreshes_do_not_pile_up_while_one_waits(world: World) -> None:
    source = folder_source(world)
    assert schedule_due(world.store) == 1
    for _ in range(3):
        set_due(world, source, datetime.now(UTC) - timedelta(seconds=1))
        assert schedule_due(world.store) == 0
    assert claimed(world, refreshes(world)[0].id)  # it began: what changes from now on is for the next
    set_due(world, source, datetime.now(UTC) - timedelta(seconds=1))
    assert schedule_due(world.store) == 1


def test_a_schedule_that_cannot_be_read_stops_nobody_elses(world: World) -> None:
    broken, fine = folder_source(world, name="broken"), folder_source(world, name="fine")
    with writing(world.store) as conn:  # as an older release may have taken it
        conn.execute("UPDATE sources SET schedule = '0 0 30 2 *' WHERE id = %s", (broken.id,))
    assert schedule_due(world.store) == 2
    assert due_at(world, fine) is not None and due_at(world, broken) is None


def test_a_source_is_added_whole_or_not_at_all(world: World) -> None:
    with pytest.raises(Invalid):
        folder_source(world, "every day")
    with writing(world.store) as conn:
        assert sources.all_of(conn, world.tenant_id) == []
    folder_source(world)
    with pytest.raises(Conflict, match="'files' exists"):
        folder_source(world)


def test_a_refresh_is_asked_of_a_folder_that_is_there(world: World) -> None:
    world.submit("a.txt", "text")
    with writing(world.store) as conn:
        api = sources.named(conn, world.tenant_id, "api")
    with pytest.raises(Invalid, match="nothing to refresh"):
        request_refresh(world.store, world.tenant_id, api.id)
    source = folder_source(world)
    for tenant_id, source_id in ((world.tenant_id, uuid4()), (uuid4(), source.id)):
        with pytest.raises(NotFound):
            request_refresh(world.store, tenant_id, source_id)
    assert refreshes(world) == []


def test_a_finished_detail_keeps_what_was_asked(world: World) -> None:
    source = folder_source(world)
    job_id = request_refresh(world.store, world.tenant_id, source.id, allow_mass_delete=True)
    with writing(world.store) as conn:
        lease = jobs.claim(conn, job_id, 60)
        assert lease is not None and lease.job.state == "running"
        jobs.finish(conn, lease, None, {"counts": {"new": 1}})
    assert job(world, job_id).detail == {"allow_mass_delete": True, "counts": {"new": 1}}


def test_to_index_says_when_there_is_nothing_to_do(world: World) -> None:
    submitted = world.submit("a.txt", "text")
    with writing(world.store) as conn:
        assert chunks.to_index(conn, submitted.document_id, 1) is not None
        assert chunks.to_index(conn, submitted.document_id, 2) is None
        assert chunks.to_index(conn, uuid4(), 1) is None
