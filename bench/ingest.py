"""Documents and pages a second, end to end: a folder through Celery, parsers, embedder and Postgres, with the time of
each stage.

    python -m bench.ingest [--folder examples/acme/files] [--copies 3] [--processes 2] [--json]
    python -m bench.ingest --against 150        # the same markdown files through LlamaIndex, one process against two, …

The floor is the stages' own time divided by the worker processes: what is above it is dispatch, queueing and commits.
`--against` takes so many pages of a handbook, or the example's markdown files where that is not there, and prints what
is promised: the ratios to LlamaIndex's IngestionPipeline with PGVectorStore (`pip install citadel-rag[bench]`), of a
refresh that finds nothing new to the first one, and of two worker processes to one, each on one thread; and how soon a
label change of a document of 1,000 chunks holds.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.label_change import label_change
from bench.llama_pipeline import ingest_with_llama_index
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
from store.migrate import create_database
from store.pool import reading_tenant

STAGES = ("fetch", "parse", "chunk", "embed", "index")
ROOT = Path(__file__).resolve().parents[1]
HANDBOOKS = (ROOT.parent / "shared" / "data" / "enterprise" / "sourcegraph-handbook", ROOT / "examples" / "acme")
CHANGED_CHUNKS = 1000


def copies_of(folder: Path, copies: int, target: Path) -> Path:
    """`copies` folders of the same files below `target`; each file is a document of its own."""
    for number in range(copies):
        shutil.copytree(folder, target / str(number), symlinks=True)
    return target


def pages_of_a_handbook(count: int, target: Path) -> Path:
    """So many markdown files, in an order that is always the same."""
    files = sorted(next(folder for folder in HANDBOOKS if folder.is_dir()).rglob("*.md"))
    random.Random(0).shuffle(files)
    target.mkdir()
    for number, file in enumerate([file for file in files if file.read_text(errors="replace").strip()][:count]):
        shutil.copy(file, target / f"{number}.md")
    return target


@contextmanager
def stack(processes: int, threads: int = 0) -> Iterator[Settings]:
    """A whole stack of its own, with so many worker processes of so many threads (0: the cores, divided)."""
    state = Path(tempfile.mkdtemp(prefix="citadel-bench-"))
    state.chmod(0o711)
    plain = load_settings({}, running_stack=False)
    settings = replace(plain, state=state, port=0, worker_processes=processes, model_threads=threads)
    try:
        with Supervisor(state, lambda text: None) as supervisor:
            own = {**os.environ, "CITADEL_MODEL_THREADS": str(threads)}  # what its processes read
            yield bring_up(supervisor, settings, own, lambda text: None)
    finally:
        erase_servers(state)
        shutil.rmtree(state, ignore_errors=True)


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
        "unchanged_ratio": round(seconds / again_s, 1),
        "processes": processes,
        "cores": os.cpu_count(),
    }


def against(pages: int) -> dict[str, object]:
    """The promised ratios, of the same files in one run."""
    outcome: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # noqa: PTH101  for the parser's confined process
        folder = pages_of_a_handbook(pages, Path(place) / "pages")
        with stack(2, threads=1) as running:
            found, two_s, again_s = ingest(running, folder)
            other = ingest_with_llama_index(create_database(running.database_url, "llama"), folder,
                                            running.chunk_tokens, os.cpu_count() or 1)  # fmt: skip
            outcome |= figures(found, two_s, again_s, 2)
            outcome |= label_change(running, CHANGED_CHUNKS)
        with stack(1, threads=1) as running:
            _, one_s, _ = ingest(running, folder)
    outcome |= {
        "llama_index_documents": other.documents,
        "llama_index_chunks": other.chunks,
        "llama_index_seconds": round(other.seconds, 2),
        "ratio_to_llama_index": round(other.seconds / two_s, 2),
        "ratio_by_chunks": round(len_chunks(found) / two_s / (other.chunks / other.seconds), 2),
        "one_process_s": round(one_s, 2),
        "two_processes_to_one": round(one_s / two_s, 2),
    }
    return outcome


def len_chunks(found: list[Job]) -> int:
    """Chunks of all jobs that are done."""
    return sum(int(job.detail["chunks"]) for job in found if job.state == "done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("examples/acme/files"))
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--against", type=int, metavar="PAGES", help="compare, with so many pages of a handbook")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.against:
        outcome = against(options.against)
    else:
        with stack(options.processes) as running:
            folder = copies_of(options.folder, options.copies, running.state / "files")
            outcome = figures(*ingest(running, folder), options.processes)
    if options.json:
        print(json.dumps(outcome))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in outcome.items()))


if __name__ == "__main__":
    main()
