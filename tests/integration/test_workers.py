"""A real Celery worker, started as an operator starts it: what it does with documents, and with being killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import redis
from celery import Celery
from psycopg import sql

from core.config import Settings, environment_of
from core.records import Job, Submitted
from embedded.server import Server
from models.embedder import open_embedder
from store import jobs
from store.blobs import FsspecBlobs
from store.broker import RedisBroker
from store.migrate import role_url
from store.pool import open_store, writing
from store.profiles import live_profile, tenant_named
from tests.conftest import PASSWORDS, World, cloned
from workers.app import make_app
from workers.dispatch import dispatch_forever
from workers.drain import drain_host

ROOT = Path(__file__).parents[2]
LEASE_S = 2.0
PATIENCE_S = 40.0
ENDED = ("done", "failed", "quarantined")
# Parsing this takes some seconds: long enough to be killed meanwhile.
LONG = "\n\n".join(
    f"# Part {n}\n\nsome *words* of {n} and `code` [link](x)\n\n- item\n- item {n}" for n in range(10000)
)


def descendants(pid: int) -> list[int]:
    """Children, then theirs."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.is_dir():
        return []
    found = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return found + [inner for child in found for inner in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Fleet:
    """One worker of two processes, a dispatcher, and what they work for."""

    world: World
    app: Celery
    worker: subprocess.Popen[bytes]
    name: str  # as Celery calls the worker
    log: Path

    def job(self, submitted: Submitted) -> Job:
        assert submitted.job_id is not None
        with writing(self.world.store) as conn:
            return jobs.get(conn, submitted.job_id)

    def ended(self, *submitted: Submitted) -> list[Job]:
        """The jobs, all at their end."""
        self.until(lambda: all(self.job(each).state in ENDED for each in submitted), "the jobs' ends")
        return [self.job(each) for each in submitted]

    def until(self, true: Callable[[], object], what: str) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < give_up, f"waited in vain for {what}:\n{self.log.read_text()[-6000:]}"
            time.sleep(0.02)

    def working_on(self, job_id: UUID | None) -> int | None:
        """The process id of the pool's child that has this job."""
        active = self.app.control.inspect(destination=[self.name], timeout=2).active() or {}
        found = [task["worker_pid"] for tasks in active.values() for task in tasks if task["args"] == [str(job_id)]]
        return next((pid for pid in found if alive(pid)), None)  # Celery takes seconds to notice that one died

    def kill_whoever_does(self, submitted: Submitted, attempt: int) -> int:
        """kill -9 the pool's child in the middle of this attempt; returns its process id."""
        victims: list[int] = []

        def caught() -> bool:
            victim = self.working_on(submitted.job_id)
            if victim is None:
                return False
            os.kill(victim, signal.SIGSTOP)  # so that it is still at it when it is looked at
            job = self.job(submitted)
            if job.attempts != attempt or job.state in (*ENDED, "accepted"):
                os.kill(victim, signal.SIGCONT)
                assert job.state not in ENDED, f"attempt {attempt} of {job} was too quick to be killed"
                return False
            victims.extend([victim, *descendants(victim)])
            os.kill(victim, signal.SIGKILL)
            return True

        self.until(caught, f"attempt {attempt} to be under way")
        self.until(lambda: not any(alive(pid) for pid in victims), "its parser to go with it")
        return victims[0]

    def count(self, what: str, document_id: UUID) -> int:
        statement = sql.SQL("SELECT count(*) FROM {} WHERE document_id = %s").format(sql.Identifier(what))
        with writing(self.world.store) as conn:
            row = conn.execute(statement, (document_id,)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def fleet(postgres: Server, redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Started once for these tests; stopped as a service manager stops it."""
    folder = tmp_path_factory.mktemp("workers")
    redis.Redis.from_url(redis_server.url).flushall()
    with cloned(postgres) as url:
        settings = Settings(
            state=folder,
            app_database_url=role_url(url, "citadel_app", PASSWORDS["citadel_app"]),
            maintenance_database_url=role_url(url, "citadel_maintenance", PASSWORDS["citadel_maintenance"]),
            redis_url=redis_server.url,
            model="fake",
            lease_s=LEASE_S,
            worker_processes=2,
        )
        store = open_store(settings.app_database_url, settings.maintenance_database_url)
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
            profile = live_profile(conn, tenant_id)
        world = World(store, FsspecBlobs(settings.blob_store_url()), tenant_id, profile, open_embedder("fake", folder))
        app, stop, log = make_app(settings), threading.Event(), folder / "worker.log"
        dispatcher = threading.Thread(
            target=dispatch_forever, args=(store, RedisBroker(settings.redis_url), app, lambda: not stop.is_set())
        )
        with log.open("wb") as output:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")}
            command = [sys.executable, "-m", "cli.main", "worker"]
            worker = subprocess.Popen(
                command, cwd=ROOT, env=environment | environment_of(settings), stdout=output, stderr=output
            )
        dispatcher.start()
        try:
            yield Fleet(world, app, worker, f"celery@{socket.gethostname()}", log)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, log.read_text()[-6000:]
        finally:
            worker.kill()
            worker.wait()
            stop.set()
            dispatcher.join()
            app.close()
            store.close()


def test_what_is_submitted_is_dispatched_and_done(fleet: Fleet) -> None:
    submitted = [fleet.world.submit(f"{n}.txt", f"the text of number {n}") for n in range(8)]
    done = fleet.ended(*submitted)
    assert {(job.state, job.attempts) for job in done} == {("done", 1)}
    for each in submitted:
        assert fleet.count("chunks", each.document_id) == fleet.count("change_log", each.document_id) == 1


def test_a_worker_killed_in_the_middle_costs_an_attempt_and_no_document(fleet: Fleet) -> None:
    long = fleet.world.submit("long.md", LONG)
    neighbours = [fleet.world.submit(f"near {n}.txt", f"a neighbour's text {n}") for n in range(4)]
    fleet.kill_whoever_does(long, attempt=1)
    (done,) = fleet.ended(long)
    assert (done.state, done.attempts) == ("done", 2)
    assert {job.state for job in fleet.ended(*neighbours)} == {"done"}
    assert fleet.count("change_log", long.document_id) == 1  # one version was published, once
    pieces = done.detail["chunks"]
    assert pieces > 100 and fleet.count("chunks", long.document_id) == pieces
    assert fleet.count(f"vectors_{fleet.world.profile.id}", long.document_id) == pieces


def test_a_document_that_kills_its_worker_each_time_is_quarantined(fleet: Fleet) -> None:
    poison = fleet.world.submit("poison.md", LONG + "\n\nand poison")
    neighbours = [fleet.world.submit(f"by {n}.txt", f"another neighbour's text {n}") for n in range(4)]
    killed = {fleet.kill_whoever_does(poison, attempt) for attempt in (1, 2, 3)}
    assert len(killed) == 3
    (job,) = fleet.ended(poison)
    assert (job.state, job.error_code, job.attempts) == ("quarantined", "worker_lost", 3)
    assert job.error is not None and "3 attempts" in job.error
    assert {near.state for near in fleet.ended(*neighbours)} == {"done"}
    assert fleet.worker.poll() is None and fleet.count("chunks", poison.document_id) == 0


def test_a_document_whose_parser_dies_fails_and_the_worker_lives(fleet: Fleet) -> None:
    deadly = fleet.world.submit("deadly.md", LONG + "\n\nand deadly")
    neighbours = [fleet.world.submit(f"at {n}.txt", f"yet another text {n}") for n in range(4)]
    pools: set[int] = set()

    def ended() -> bool:
        """Whoever parses it is killed, whatever it takes."""
        pool = fleet.working_on(deadly.job_id)
        pools.update([pool] if pool else [])
        for parsing in descendants(pool)[1:] if pool else []:  # the first is the warm one, which forks
            with suppress(ProcessLookupError):
                os.kill(parsing, signal.SIGKILL)
        return fleet.job(deadly).state in ENDED

    fleet.until(ended, "its end")
    job = fleet.job(deadly)
    assert (job.state, job.error_code, job.attempts) == ("failed", "parser_limit", 1)
    assert {near.state for near in fleet.ended(*neighbours)} == {"done"}
    assert len(pools) == 1 and alive(pools.pop())


def test_a_drained_worker_finishes_what_it_does_and_takes_no_more(fleet: Fleet) -> None:
    """The last of these tests: the worker takes no work from here on."""
    long = fleet.world.submit("last.md", LONG[: len(LONG) // 4])
    fleet.until(lambda: fleet.job(long).state not in ("accepted", *ENDED), "the long document to be under way")
    assert drain_host(fleet.app) == [fleet.name]
    assert (fleet.job(long).state, fleet.job(long).attempts) == ("done", 1)
    waiting = fleet.world.submit("too-late.txt", "text")
    time.sleep(1)
    assert fleet.job(waiting).state == "accepted" and fleet.worker.poll() is None
