"""One run: work that never stops coming, faults that never stop either, and readers who look all the while."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import redis as redis_client

from core.errors import Retryable
from core.records import Job, Labels
from ingest.schedule import add_folder, request_refresh
from store import jobs, operations
from store.audit import Actor
from store.blobs import FsspecBlobs
from store.operations import Choice
from store.pool import writing
from tests.faults.deadly import INDEX_POINTS, POISON, REFRESH_POINTS, SLOW
from tests.faults.ledger import Ledger, Readers, Verdict, judge, text_of
from tests.faults.stack import Stack

REFRESH_WAITS = "SELECT FROM jobs WHERE kind = 'refresh' AND state = 'accepted'"
CLOCK = "clock"
HARNESS = Actor("service:faults")
STALLED_S = 90.0  # without a single death: the plan cannot be followed


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    deaths: int = 310  # of worker children, at points
    workers_killed: int = 20
    workers: int = 3
    processes: int = 4  # of a worker
    others: int = 3  # dispatchers and beats, each
    flushes: int = 3
    redis_restarts: int = 2
    postgres_restarts: int = 2
    disks_full: int = 1
    resets: int = 100
    slow: int = 3  # documents
    slow_s: float = 60.0
    open_at_most: int = 60  # jobs; what comes beyond waits outside
    lease_s: float = 3.0
    limit_s: float = 1500.0


@dataclass(slots=True)
class Run:
    """What the threads of a run share."""

    stack: Stack
    size: Size
    ledger: Ledger = field(default_factory=Ledger)
    files: dict[str, str] = field(default_factory=dict)  # of the folder that is a source
    stopping: threading.Event = field(default_factory=threading.Event)
    broken: list[str] = field(default_factory=list)  # what a thread of the harness died of
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def blobs(self) -> FsspecBlobs:
        return FsspecBlobs(self.stack.settings.blob_store_url())

    def submit(self, name: str, serial: int, sections: int = 2) -> UUID | None:
        text = text_of(name, serial, sections)
        return self.ledger.submit(self.stack.store, self.blobs, self.stack.tenant_id, name, text)

    def asked(self, question: Callable[[Any], Any]) -> Any:
        """What Postgres answers, when it is there."""
        while True:
            try:
                with writing(self.stack.store) as conn:
                    return question(conn)
            except Retryable:
                time.sleep(0.3)

    def open_jobs(self) -> int:
        return int(self.asked(lambda conn: jobs.count_open(conn, self.stack.tenant_id)))

    def jobs_in(self, *states: str) -> list[Job]:
        found: list[Job] = self.asked(lambda c: operations.chosen(c, self.stack.tenant_id, Choice(), states))
        return found


def follow(run: Run) -> Verdict:
    """The whole run, from the first document to the verdict. Call it from the main thread: it starts servers."""
    stack, size = run.stack, run.size
    began = time.monotonic()
    _plan(run)
    stack.start_all(size.workers, size.others)
    readers = Readers(stack.store, stack.tenant_id, run.ledger)
    readers.start()
    threads = [threading.Thread(target=_guarded, args=(run, work)) for work in (_feed, _edit)]
    for thread in threads:
        thread.start()
    try:
        poison = run.submit(POISON, 0)
        _faults(run, began + size.limit_s)
        _resets(run)
        run.told["poison"] = _ended(run, poison)
        _slow(run)
    finally:
        run.stopping.set()
        for thread in threads:
            thread.join()
    _settle(run, began + size.limit_s)
    time.sleep(0.2)
    readers.stop()
    run.broken += readers.broken
    run.told |= {"reads": readers.reads, "searches": readers.searches, "reader_outages": readers.outages,
                 "seconds": round(time.monotonic() - began, 1)}  # fmt: skip
    return judge(stack.store, run.ledger, readers, {POISON}, run.files)


def _plan(run: Run) -> None:
    """Deaths spread evenly over the points; refreshes have few, for each may die twice."""
    at_refresh = min(2 * len(REFRESH_POINTS), run.size.deaths // 8)
    deaths = {point: 0 for point in (*INDEX_POINTS, *REFRESH_POINTS)}
    for points, count in ((REFRESH_POINTS, at_refresh), (INDEX_POINTS, run.size.deaths - at_refresh)):
        for number in range(count):
            deaths[points[number % len(points)]] += 1
    run.stack.plan.write({point: count for point, count in deaths.items() if count})


def _guarded(run: Run, work: Callable[[Run], None]) -> None:
    try:
        work(run)
    except BaseException as error:
        run.broken.append(f"{work.__name__}: {type(error).__name__}: {error}")
        raise


def _feed(run: Run) -> None:
    """New documents and new versions of old ones, as fast as they are done."""
    chance, serial, names = random.Random(5), 0, 0
    while not run.stopping.is_set():
        if run.open_jobs() >= run.size.open_at_most:
            time.sleep(0.1)
            continue
        serial += 1
        if chance.random() < 0.5:
            names += 1
        name = f"d{names if chance.random() < 0.5 else chance.randint(0, names)}"
        run.submit(name, serial, chance.randint(1, 3))


def _edit(run: Run) -> None:
    """A folder in which files come, change and go, refreshed on schedule and on request."""
    chance, folder = random.Random(7), run.stack.state / "source"
    folder.mkdir()
    source = add_folder(
        run.stack.store, run.stack.tenant_id, "files", {"path": str(folder)}, Labels(("public",)), None, 1.0
    )
    clock = run.stack.state / CLOCK
    clock.mkdir()  # refreshed by the schedule alone
    add_folder(run.stack.store, run.stack.tenant_id, CLOCK, {"path": str(clock)}, Labels(), "* * * * *", 1.0)
    serial = 0
    while not run.stopping.wait(0.5):
        for _ in range(3):
            serial += 1
            _edit_one(run, folder, f"f{chance.randint(0, 19)}.txt", serial, chance.random() < 0.25)
        busy = run.asked(lambda conn: conn.execute(REFRESH_WAITS).fetchone())
        if busy is None:
            run.asked(lambda conn: request_refresh(run.stack.store, run.stack.tenant_id, source.id, by=HARNESS))
    run.asked(lambda conn: request_refresh(run.stack.store, run.stack.tenant_id, source.id, by=HARNESS))


def _edit_one(run: Run, folder: Path, name: str, serial: int, gone: bool) -> None:
    if gone:
        run.files.pop(name, None)
        (folder / name).unlink(missing_ok=True)
        return
    text = text_of(name, serial, 1)
    run.ledger.offer(name, text)
    whole = folder.with_name("being-written")
    whole.write_text(text)
    whole.rename(folder / name)
    run.files[name] = text


def _faults(run: Run, give_up: float) -> None:
    """The faults, each when so many of the planned deaths have happened."""
    stack, size = run.stack, run.size
    flush = redis_client.Redis.from_url(stack.redis.url)
    due = sorted(
        [*_at(size.workers_killed, lambda n: stack.kill(f"worker{n % size.workers}")),
         *_at(size.flushes, lambda n: flush.flushall()), *_at(size.redis_restarts, lambda n: stack.restart_redis()),
         *_at(size.postgres_restarts, lambda n: stack.restart_postgres()),
         *_at(2, lambda n: stack.kill(f"dispatcher{n % size.others}")),
         *(_at(size.disks_full, lambda n: _disk_full(run)) if stack.small_disk else [])],
        key=lambda event: event[0],
    )  # fmt: skip
    last, changed = -1, time.monotonic()
    while due or stack.plan.left():
        died = sum(stack.plan.spent().values())
        if died != last:
            last, changed = died, time.monotonic()
        stalled = time.monotonic() - changed > STALLED_S
        while due and (died >= due[0][0] * size.deaths or stalled):
            due.pop(0)[1]()
        if time.monotonic() > give_up or (stalled and not due):
            break
        time.sleep(0.1)


def _at(count: int, fault: Callable[[int], Any]) -> list[tuple[float, Callable[[], Any]]]:
    """So many times a fault, at even shares of the deaths."""
    return [((n + 1) / (count + 1), lambda n=n: fault(n)) for n in range(count)]  # type: ignore[misc]


def _disk_full(run: Run) -> None:
    """No room for a byte: nothing is accepted that cannot be kept, and what waits for room is not blamed."""
    before = run.ledger.refused["blob_unavailable"]
    run.stack.fill_disk()
    try:
        end = time.monotonic() + 10
        while run.ledger.refused["blob_unavailable"] == before and time.monotonic() < end:
            run.submit("for-a-full-disk", int(time.monotonic() * 1000))
        time.sleep(1)
    finally:
        run.stack.empty_disk()
    run.told["refused_on_full_disk"] = run.ledger.refused["blob_unavailable"] - before


def _resets(run: Run) -> None:
    """Every connection to Redis reset again and again; then, how long until new work is done."""
    reset = 0
    for _ in range(run.size.resets):
        reset += run.stack.proxy.reset()
        time.sleep(0.05)
    began = time.monotonic()
    asked = [run.submit(f"after{n}", n) for n in range(5 if run.size.resets else 0)]
    while any(_state(run, job_id) != "done" for job_id in asked) and time.monotonic() - began < 60:
        time.sleep(0.2)
    run.told |= {"connections_reset": reset, "resumed_s": round(time.monotonic() - began, 1)}


def _slow(run: Run) -> None:
    """Documents that take many times as long as Redis waits before it delivers again."""
    before = run.stack.plan.counted("skipped")
    asked = [run.submit(f"{SLOW}{n}", n) for n in range(run.size.slow)]
    ended = [_ended(run, job_id) for job_id in asked]
    run.told["slow"] = ended
    run.told["redelivered"] = run.stack.plan.counted("skipped") - before


def _ended(run: Run, job_id: UUID | None) -> dict[str, Any]:
    """How the job ended, when it has."""
    assert job_id is not None
    end = time.monotonic() + run.size.slow_s + 60
    while (state := _state(run, job_id)) not in jobs.ENDED and time.monotonic() < end:
        time.sleep(0.2)
    job: Job = run.asked(lambda conn: jobs.get(conn, job_id))
    return {"state": state, "attempts": job.attempts, "error": job.error_code}


def _state(run: Run, job_id: UUID | None) -> str:
    assert job_id is not None
    return str(run.asked(lambda conn: jobs.get(conn, job_id)).state)


def _settle(run: Run, give_up: float) -> None:
    """Until nothing is open. What was quarantined because its workers were killed is tried again, as by an operator."""
    run.told["retried"] = 0
    while True:
        while run.open_jobs() and time.monotonic() < give_up:
            time.sleep(0.2)
        lost = [job.id for job in run.jobs_in("quarantined") if not _is_poison(run, job)]
        if not lost or time.monotonic() > give_up:
            break
        run.told["retried"] += _retried(run, lost)
    run.told["left_open"] = run.open_jobs()
    run.told["failed"] = sorted({str(job.error_code) for job in run.jobs_in("failed")})


def _retried(run: Run, job_ids: list[UUID]) -> int:
    return int(run.asked(lambda conn: operations.retry(conn, run.stack.tenant_id, job_ids, HARNESS)))


def _is_poison(run: Run, job: Job) -> bool:
    name = run.asked(
        lambda conn: conn.execute("SELECT external_id FROM documents WHERE id = %s", (job.document_id,)).fetchone()
    )
    return name == (POISON,)
