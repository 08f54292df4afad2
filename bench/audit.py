"""What the audit's chain costs: rows a second by four writers of one tenant, against a table without a chain.

python -m bench.audit [seconds]
"""

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import psycopg

from embedded.place import erase_servers
from embedded.postgres import start_postgres
from store import audit
from store.migrate import create_database, migrate, role_url
from store.pool import Store, open_store, writing

THREADS = 4
TENANT = UUID(int=1)
DOCUMENTS = [f"{UUID(int=n)}@1" for n in range(8)]
DETAIL = {"documents": DOCUMENTS, "epoch": 3, "label_sets": {"count": 10, "sha256": "0" * 64}}
PLAIN = """
    CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
        tenant_id uuid, action text, actor text, acting_for text, outcome text, resource text, request_id uuid,
        detail jsonb);
    CREATE INDEX ON plain (tenant_id, at);
    GRANT INSERT ON plain TO citadel_maintenance
"""
ADD_PLAIN = "INSERT INTO plain (tenant_id, action, actor, outcome, request_id, detail) VALUES (%s, %s, %s, %s, %s, %s)"


def plain(store: Store) -> None:
    """A row without a chain, as migration 0001 had it."""
    with writing(store) as conn:
        conn.execute(ADD_PLAIN, (TENANT, "search", "service:agent", "ok", uuid4(), json.dumps(DETAIL)))


def waiting(store: Store) -> None:
    """A chained row whose commit waits for the disk under the chain's lock."""
    with writing(store) as conn:
        audit.add(conn, TENANT, "search", actor="service:agent", request_id=uuid4(), detail=DETAIL)


def chained(store: Store) -> None:
    """A row as every search and read writes it."""
    audit.record(store, TENANT, "search", actor="service:agent", request_id=uuid4(), detail=DETAIL)


def rate(store: Store, write: Callable[[Store], None], seconds: float) -> tuple[float, float, float]:
    """Rows a second, and the median and 99th percentile of a row's milliseconds."""
    took: list[float] = []
    stop = time.monotonic() + seconds

    def writer() -> None:
        while time.monotonic() < stop:
            started = time.perf_counter()
            write(store)
            took.append((time.perf_counter() - started) * 1000)

    threads = [threading.Thread(target=writer) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(took)
    return len(took) / seconds, ordered[len(took) // 2], ordered[int(len(took) * 0.99)]


def main() -> None:
    """Print each way's figures and its ratio to the plain table's, taken in turns."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    state = Path(tempfile.mkdtemp(prefix="citadel-bench-"))
    state.chmod(0o711)
    server = start_postgres(state)
    try:
        url = create_database(server.url, "bench")
        migrate(url, {"citadel_app": "a", "citadel_maintenance": "m"})
        with psycopg.connect(url) as conn:
            conn.execute(PLAIN)
        store = open_store("", role_url(url, "citadel_maintenance", "m"), size=THREADS)
        for write in (plain, chained):
            rate(store, write, 0.5)
        for _ in range(3):
            base = rate(store, plain, seconds)[0]
            for write in (waiting, chained):
                rows, p50, p99 = rate(store, write, seconds)
                print(f"{write.__name__:8} {rows:6.0f} rows/s = {rows / base:.2f} × plain ({base:.0f}/s);"
                      f" p50 {p50:.1f} ms, p99 {p99:.1f} ms")  # fmt: skip
        store.close()
    finally:
        server.stop()
        erase_servers(state)
        shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main()
