"""Several hosts on one Postgres, one Redis and one S3: some are cut off and some lost while documents come."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec  # type: ignore[import-untyped]

from core.records import Job
from store import jobs
from tests.faults.ledger import Readers, judge
from tests.faults.network import Network, network, why_not
from tests.faults.run import Run, Size
from tests.faults.stack import Reached, Stack, stack

Row = tuple[str, Any, str, bool]

BUCKET = "citadel-hosts"
BEFORE_COMMIT = "embedded"  # all is computed, nothing of it written
IN_COMMIT = "flip"  # the transaction that publishes is open, and holds its rows
PATIENCE_S = 120.0
LATE_S = 0.5  # so long after the late commit was sent is the link mended
LOST, REFUSED = "lost", "late commits refused"


@dataclass(frozen=True, slots=True)
class Hosts:
    """How much of everything."""

    hosts: int = 5
    processes: int = 2  # of a host's worker
    dispatchers: int = 5  # the first of the hosts have one each; with none, this host has one
    documents: int = 60  # at least
    cut_before: int = 3  # cut off with their work done and not written, until another did it
    cut_within: int = 1  # cut off with the publishing transaction open, for longer than the lease
    killed_before: int = 1  # cut off and killed: as when the power goes, no connection is closed
    killed_within: int = 1
    open_at_most: int = 20
    lease_s: float = 3.0


def outcome_of_hosts(state: Path, size: Hosts) -> dict[str, Any]:
    """A run of that size in that folder; only why not, where there can be no such hosts."""
    if (reason := why_not()) is not None:
        return {"left_out": reason}
    with network() as net, _s3(net.address) as blob_url:
        reached = Reached(net.address, net.subnet, blob_url)
        with stack(state, size.processes, 1.0, size.lease_s, reached) as made:
            return asdict(size) | _follow(made, net, size)


def rows_of_hosts(told: dict[str, Any]) -> list[Row]:
    """Their part of the table."""
    if "left_out" in told:
        return [("several hosts", 0, f"left out: {told['left_out']}", True)]
    cuts, kills = told["cuts"], told["kills"]
    rows: list[Row] = [
        ("hosts, each in a network of its own", told["hosts"], "on one Postgres, Redis and S3", True),
        ("cut off, their work done by another", told["cut_before"], f"after {_seconds(cuts)}",
         len(cuts) == told["cut_before"] and all(each["state"] == "done" for each in cuts)),
        ("their late commits refused", told["refused"], "when the link was back", told["refused"] >= len(cuts)),
        ("cut off within their commit", told["cut_within"], "which holds its rows: done when the link was back",
         all(each["state"] == "done" for each in told["within"])),
        ("lost with all that ran there", told["killed_before"] + told["killed_within"],
         f"no connection closed; their work done after {_seconds(kills)}",
         all(each["state"] == "done" for each in kills)),
        ("versions accepted meanwhile", told["accepted"], str(told["jobs"]),
         told["accepted"] == told["jobs"].get("done") and set(told["jobs"]) == {"done"}),
    ]  # fmt: skip
    for name in ("lost", "twice", "half", "broken"):
        rows.append((f"{NAMES[name]}, of several hosts", len(told[name]), str(told[name])[:300], not told[name]))
    return rows


NAMES = {"lost": "versions lost", "twice": "published twice", "half": "half-read", "broken": "broken threads"}


def _seconds(faults: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['seconds']:.0f}" for each in faults) + " s"


def _follow(made: Stack, net: Network, size: Hosts) -> dict[str, Any]:
    made.plan.write({})
    for number in range(size.hosts):
        net.add(host := f"h{number}")
        made.start_worker(host, on=net.on(host))
        if number < size.dispatchers:
            made.start(f"dispatcher-{host}", "-m", "cli.main", "dispatch", on=net.on(host))
    if not size.dispatchers:
        made.start("dispatcher", "-m", "cli.main", "dispatch")
    run = Run(made, Size(open_at_most=size.open_at_most))
    readers = Readers(made.store, made.tenant_id, run.ledger)
    readers.start()
    feeding = threading.Thread(target=_feed, args=(run, size.documents))
    feeding.start()
    try:
        told = {
            "cuts": [_cut(run, net) for _ in range(size.cut_before)],
            "within": [_cut_within(run, net, size.lease_s) for _ in range(size.cut_within)],
            "kills": [*(_kill(run, net, BEFORE_COMMIT) for _ in range(size.killed_before)),
                      *(_kill(run, net, IN_COMMIT) for _ in range(size.killed_within))],
        }  # fmt: skip
    finally:
        run.stopping.set()
        feeding.join()
    _until(lambda: run.open_jobs() == 0)
    readers.stop()
    for name in list(made.running):  # all is done: no need to wait for their own end
        made.end(name)
    verdict = judge(made.store, run.ledger, readers, set(), {})
    states = run.asked(lambda conn: {state: n for _, state, n in jobs.counts(conn)})
    return told | asdict(verdict) | {
        "refused": made.plan.counted(LOST), "jobs": states, "broken": run.broken + readers.broken,
        "accepted": sum(len(versions) for versions in run.ledger.accepted.values()), "reads": readers.reads,
    }  # fmt: skip


def _feed(run: Run, documents: int) -> None:
    """New documents and new versions, until the faults are over and there are enough."""
    serial = 0
    while not run.stopping.is_set() or serial < documents:
        if run.open_jobs() >= run.size.open_at_most:
            time.sleep(0.1)
            continue
        serial += 1
        run.submit(f"d{serial % 40}", serial)


def _cut(run: Run, net: Network) -> dict[str, Any]:
    """Somebody is cut off who only has to write down what it did; the link is back when another has done it."""
    host, job_id = _held(run, BEFORE_COMMIT)
    refused = run.stack.plan.counted(LOST)
    net.cut(host)
    told = _done(run, job_id)
    run.stack.plan.release(host, job_id)
    time.sleep(LATE_S)
    net.mend(host)
    _until(lambda: run.stack.plan.counted(LOST) > refused)
    return told


def _cut_within(run: Run, net: Network, lease_s: float) -> dict[str, Any]:
    """Cut off while its commit is under way: what it holds nobody else takes, though its lease has run out."""
    host, job_id = _held(run, IN_COMMIT)
    net.cut(host)
    time.sleep(2 * lease_s)
    run.stack.plan.release(host, job_id)
    time.sleep(LATE_S)
    net.mend(host)
    return _done(run, job_id)


def _kill(run: Run, net: Network, point: str) -> dict[str, Any]:
    """A host that is gone from one moment to the next, with everything on it."""
    host, job_id = _held(run, point)
    net.cut(host)
    for name in [name for name in run.stack.running if name.endswith(host)]:
        run.stack.end(name)
    run.stack.plan.release(host, job_id)
    return _done(run, job_id)


def _held(run: Run, point: str) -> tuple[str, UUID]:
    """(host, job) of who is the next to come to the point, and stands still there."""
    run.stack.plan.hold(point)
    _until(lambda: run.stack.plan.held() is not None)
    held = run.stack.plan.held()
    assert held is not None, f"nobody came to {point}"
    return held


def _done(run: Run, job_id: UUID) -> dict[str, Any]:
    """How the job ended, and how long that took."""
    began = time.monotonic()

    def job() -> Job:
        found: Job = run.asked(lambda conn: jobs.get(conn, job_id))
        return found

    _until(lambda: job().state in jobs.ENDED)
    return {"state": job().state, "attempts": job().attempts, "error": job().error, "seconds": time.monotonic() - began}


def _until(so: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not so() and time.monotonic() < end:
        time.sleep(0.05)


@contextmanager
def _s3(address: str) -> Iterator[str]:
    """An S3 of moto's at that address, which this process's children are told of too; the URL of a folder there."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "hosts", "AWS_SECRET_ACCESS_KEY": "hosts"}
    before = {name: os.environ.get(name) for name in told}
    os.environ |= told
    try:
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
        yield f"s3://{BUCKET}/blobs"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        server.stop()
