"""Documents and pages a second, end to end: a folder through Celery, parsers, embedder and Postgres, with the time of
each stage.

    python -m bench.ingest [--folder examples/acme/files] [--copies 3] [--processes 2] [--json]

The floor is the stages' own time divided by the worker processes: what is above it is dispatch, queueing and commits.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from cli.sources import wait_for_indexing, wait_for_job
from cli.stack import opened_store, tenant_of
from cli.up import bring_up
from core.config import Settings, load_settings
from core.labels import make_labels
from core.records import Job
from embedded.place import erase_servers
from embedded.supervisor import Supervisor
from ingest.schedule import add_folder, request_refresh
from store import jobs
from store.pool import reading_tenant

STAGES = ("fetch", "parse", "chunk", "embed", "index")


def copies_of(folder: Path, copies: int, target: Path) -> Path:
    """`copies` folders of the same files below `target`; each file is a document of its own."""
    for number in range(copies):
        shutil.copytree(folder, target / str(number), symlinks=True)
    return target


def ingest(settings: Settings, folder: Path) -> tuple[list[Job], float, float]:
    """The indexing jobs, the seconds of the whole first refresh, and those of a second one that finds nothing new."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        source = add_folder(store, tenant_id, "bench", {"path": str(folder)}, make_labels(["public"]), None, 0.3)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            wait_for_job(store, tenant_id, request_refresh(store, tenant_id, source.id))
            wait_for_indexing(store, tenant_id)
            seconds.append(time.perf_counter() - started)
        with reading_tenant(store, tenant_id) as conn:
            found = jobs.recent(conn, tenant_id, None, 1_000_000)
    return [job for job in found if job.kind == "index"], seconds[0], seconds[1]


def figures(found: list[Job], seconds: float, again_s: float, processes: int) -> dict[str, object]:
    """What a run came to."""
    done = [job for job in found if job.state == "done"]
    stage_s = {stage: round(sum(job.detail["ms"][stage] for job in done) / 1000, 2) for stage in STAGES}
    chunks, pages = (sum(int(job.detail[key]) for job in done) for key in ("chunks", "pages"))
    floor = sum(stage_s.values()) / processes
    return {
        "documents": len(done),
        "refused": dict(Counter(job.error_code for job in found if job.state != "done")),
        "chunks": chunks,
        "pages": pages,
        "seconds": round(seconds, 2),
        "documents_per_s": round(len(done) / seconds, 1),
        "chunks_per_s": round(chunks / seconds, 1),
        "pages_per_s": round(pages / seconds, 1),
        "stage_s": stage_s,
        "floor_s": round(floor, 2),
        "ratio_to_floor": round(seconds / floor, 2),
        "unchanged_refresh_s": round(again_s, 2),
        "processes": processes,
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("examples/acme/files"))
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="citadel-bench-"))
    state.chmod(0o711)
    settings = replace(load_settings({}, running_stack=False), state=state, port=0, worker_processes=options.processes)
    try:
        with Supervisor(state, lambda text: None) as supervisor:
            running = bring_up(supervisor, settings, dict(os.environ), lambda text: None)
            folder = copies_of(options.folder, options.copies, state / "files")
            outcome = figures(*ingest(running, folder), options.processes)
    finally:
        erase_servers(state)
        shutil.rmtree(state, ignore_errors=True)
    if options.json:
        print(json.dumps(outcome))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in outcome.items()))


if __name__ == "__main__":
    main()
