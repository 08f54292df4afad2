"""Leases are kept for as long as the work under them goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Retryable
from core.records import Lease
from store import jobs
from store.pool import Store, writing


@contextmanager
def heartbeat(store: Store, lease_s: float, *leases: Lease) -> Iterator[None]:
    """Keep the leases while the body runs; what it computes for one that is lost is refused at its commit."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(lease_s / 3):
            try:
                with writing(store) as conn:
                    jobs.renew(conn, leases, lease_s)
            except Retryable:  # Postgres is away: the leases may yet outlast it
                continue

    thread = threading.Thread(target=beat, name=f"heartbeat-{leases[0].job.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
