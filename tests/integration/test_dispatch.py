"""The dispatcher: every committed job reaches the broker, however often the broker forgets it, and none is lost."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import pytest
import redis
from celery import Celery

from core.config import Settings
from core.errors import BrokerUnavailable
from embedded.server import Server
from ingest.attempt import attempt
from ingest.pipeline import Pipeline
from store import jobs, turns
from store.broker import QUEUES, RedisBroker
from store.pool import writing
from tests.conftest import World
from workers import dispatch
from workers.app import make_app
from workers.dispatch import dispatch_forever, dispatch_once


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


NO_REDIS = f"redis://127.0.0.1:{closed_port()}/0"


@dataclass(frozen=True, slots=True)
class Post:
    """A dispatcher's two ends: the rows, and a queue that this test alone empties."""

    world: World
    app: Celery
    broker: RedisBroker
    redis: redis.Redis

    def once(self) -> int:
        return dispatch_once(self.world.store, self.broker, self.app)

    def waiting(self) -> int:
        return self.broker.queue_length()

    def received(self) -> list[UUID]:
        """Take every message off the queue, as a worker would, and read the job's id."""
        taken: list[UUID] = []
        while raw := self.redis.rpop(QUEUES["index"]):  # the end that kombu reads from
            assert isinstance(raw, bytes)
            message = json.loads(raw)
            assert message["headers"]["task"] == "citadel.index"
            taken.append(UUID(json.loads(base64.b64decode(message["body"]))[0][0]))
        return taken

    def submit(self, count: int) -> list[UUID]:
        found = [self.world.submit(f"{n}.txt", f"text {n}").job_id for n in range(count)]
        return [job_id for job_id in found if job_id is not None]

    def long_ago(self, seconds: float = 3600) -> None:
        """As if what was sent had been sent that long ago."""
        with writing(self.world.store) as conn:
            conn.execute("UPDATE jobs SET dispatched_at = dispatched_at - make_interval(secs => %s)", (seconds,))

    def sent(self) -> int:
        with writing(self.world.store) as conn:
            row = conn.execute("SELECT count(*) FROM jobs WHERE dispatched_at IS NOT NULL").fetchone()
        assert row is not None
        return int(row[0])

    def states(self) -> dict[str, int]:
        with writing(self.world.store) as conn:
            return {state: count for _, state, count in jobs.counts(conn)}


def application(url: str) -> Celery:
    return make_app(Settings(redis_url=url))


@pytest.fixture
def post(world: World, empty_redis: Server) -> Iterator[Post]:
    """An empty queue."""
    client = redis.Redis.from_url(empty_redis.url)
    app = application(empty_redis.url)
    yield Post(world, app, RedisBroker(empty_redis.url), client)
    app.close()
    client.close()


# --- once -----------------------------------------------------------------------------------------------------------


def test_each_job_is_sent_once_oldest_first(post: Post) -> None:
    asked = post.submit(5)
    assert (post.once(), post.once()) == (5, 0)
    assert post.received() == asked
    assert post.once() == 0


def test_nothing_is_sent_before_its_commit(post: Post) -> None:
    with writing(post.world.store) as conn:
        conn.execute("INSERT INTO jobs (tenant_id, kind) VALUES (%s, 'index')", (post.world.tenant_id,))
        assert post.once() == 0
    assert post.once() == 1


def test_what_is_held_done_or_not_due_is_not_sent(post: Post) -> None:
    held, done, later, failed, ready = post.submit(5)
    with writing(post.world.store) as conn:
        assert jobs.claim(conn, held, 60)
        leases = [jobs.claim(conn, job_id, 60) for job_id in (done, failed, later)]
        assert leases[0] and leases[1] and leases[2]
        jobs.finish(conn, leases[0], 1)
        jobs.fail(conn, leases[1], "code", "reason")
        jobs.retry_or_quarantine(conn, leases[2], "code", "reason")
    assert post.once() == 1 and post.received() == [ready]


def test_a_job_put_back_is_sent_again_when_its_delay_has_passed(post: Post) -> None:
    (job_id,) = post.submit(1)
    post.once()
    post.received()
    with writing(post.world.store) as conn:
        lease = jobs.claim(conn, job_id, 60)
        assert lease
        jobs.retry_or_quarantine(conn, lease, "blob_unavailable", "away")
    assert post.once() == 0
    with writing(post.world.store) as conn:
        conn.execute("UPDATE jobs SET next_try_at = now()")
    assert post.once() == 1 and post.received() == [job_id]


def test_a_job_whose_worker_died_is_sent_again_as_soon_as_its_lease_ran_out(post: Post) -> None:
    (job_id,) = post.submit(1)
    post.once()
    post.received()
    with writing(post.world.store) as conn:
        assert jobs.claim(conn, job_id, 0.3)
    assert post.once() == 0
    time.sleep(0.4)
    assert (post.once(), post.once()) == (1, 0) and post.received() == [job_id]


def test_a_job_out_of_attempts_is_quarantined_not_sent(post: Post) -> None:
    (job_id,) = post.submit(1)
    for _ in range(3):
        with writing(post.world.store) as conn:
            assert jobs.claim(conn, job_id, -1)
    assert post.once() == 0 and post.waiting() == 0
    assert post.states() == {"quarantined": 1}


def test_several_dispatchers_send_each_job_once(post: Post) -> None:
    asked = post.submit(40)
    barrier = threading.Barrier(4)

    def work(_: int) -> int:
        barrier.wait()
        return sum(post.once() for _ in range(3))

    with ThreadPoolExecutor(4) as dispatchers:
        assert sum(dispatchers.map(work, range(4))) == 40
    assert sorted(post.received()) == sorted(asked)


# --- a broker that forgets ------------------------------------------------------------------------------------------


def test_what_the_broker_lost_is_sent_again_and_done_once(post: Post, pipeline: Pipeline) -> None:
    asked = post.submit(6)
    post.once()
    post.redis.flushall()
    assert post.once() == 0  # it may yet be on its way
    post.long_ago(dispatch.RESEND_AFTER_S + 1)
    assert post.once() == 6
    again = post.received()
    assert sorted(again) == sorted(asked)
    assert [attempt(pipeline, job_id) for job_id in again] == ["done"] * 6
    post.long_ago()
    assert post.once() == 0 and post.states() == {"done": 6}


def test_what_waits_in_the_queue_is_not_taken_for_lost(post: Post) -> None:
    post.submit(3)
    post.once()
    post.long_ago(dispatch.RESEND_AFTER_S + 1)
    assert post.once() == 0 and post.waiting() == 3


def test_what_was_lost_while_others_keep_the_queue_full_is_sent_again_in_time(post: Post) -> None:
    """Else a loss under steady load would wait until the load ends."""
    (lost,) = post.submit(1)
    post.once()
    post.redis.flushall()
    post.long_ago(dispatch.RESEND_ANYWAY_S + 1)
    post.world.submit("other.txt", "another text")
    post.once()
    assert lost in post.received()


def test_a_message_sent_twice_is_done_once(post: Post, pipeline: Pipeline) -> None:
    """A dispatcher that dies between its sending and its commit."""
    (job_id,) = post.submit(1)

    class Died(Exception):
        """The dispatcher's end."""

    with pytest.raises(Died), writing(post.world.store) as conn:
        assert turns.take_unsent(conn, "index", 10, dispatch.RESEND_AFTER_S, dispatch.OVERTAKEN_S) == [job_id]
        post.app.send_task("citadel.index", (str(job_id),))
        raise Died
    assert post.sent() == 0
    assert post.once() == 1
    twice = post.received()
    assert twice == [job_id, job_id]
    assert [attempt(pipeline, each) for each in twice] == ["done", "skipped"]
    with writing(post.world.store) as conn:
        assert conn.execute("SELECT count(*) FROM change_log").fetchone() == (1,)


# --- a broker that is away ------------------------------------------------------------------------------------------


def test_while_redis_is_away_nothing_counts_as_sent(post: Post) -> None:
    post.submit(2)
    with pytest.raises(BrokerUnavailable):
        dispatch_once(post.world.store, RedisBroker(NO_REDIS), application(NO_REDIS))
    assert post.sent() == 0 and post.once() == 2


def test_a_redis_that_goes_away_while_jobs_are_sent_takes_none_with_it(post: Post) -> None:
    asked = post.submit(2)
    with pytest.raises(BrokerUnavailable):  # it answers for the queue's length, and then takes no message
        dispatch_once(post.world.store, post.broker, application(NO_REDIS))
    assert post.sent() == 0 and post.once() == 2 and post.received() == asked


def test_a_redis_without_room_takes_none(post: Post) -> None:
    post.submit(1)
    post.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerUnavailable):
            post.once()
    finally:
        post.redis.config_set("maxmemory", 0)
    assert post.sent() == 0 and post.once() == 1


def test_a_dispatcher_waits_out_an_absence_and_goes_on(post: Post) -> None:
    asked = post.submit(2)
    post.redis.config_set("maxmemory", 1)
    stop = threading.Event()
    running = threading.Thread(
        target=dispatch_forever, args=(post.world.store, post.broker, post.app, lambda: not stop.is_set())
    )
    running.start()
    try:
        time.sleep(0.3)
        assert post.sent() == 0 and running.is_alive()
        post.redis.config_set("maxmemory", 0)
        end = time.monotonic() + 10
        while post.sent() < 2 and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        post.redis.config_set("maxmemory", 0)
        stop.set()
        running.join(10)
    assert not running.is_alive()
    assert sorted(post.received()) == sorted(asked)


# --- the queue's length ---------------------------------------------------------------------------------------------


def test_what_waits_waits_in_postgres(post: Post) -> None:
    with writing(post.world.store) as conn:
        conn.execute(
            "INSERT INTO jobs (tenant_id, kind) SELECT %s, 'index' FROM generate_series(1, %s)",
            (post.world.tenant_id, dispatch.QUEUE_LIMIT + 50),
        )
    assert (post.once(), post.once()) == (dispatch.QUEUE_LIMIT, 0)
    assert post.waiting() == dispatch.QUEUE_LIMIT
    for _ in range(30):
        post.redis.rpop(QUEUES["index"])
    assert post.once() == 30 and post.waiting() == dispatch.QUEUE_LIMIT
    post.received()
    assert post.once() == 20
