"""Prometheus metrics: counters of this process, and on each scrape what Postgres and Redis tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api.service import Service
from core.errors import BrokerUnavailable
from store import jobs, sources
from store.pool import writing


class Metrics:
    """One registry an app, so that two apps in a process do not share counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.searches = Counter(
            "citadel_searches_total", "Searches answered or failed", ["mode", "outcome"], registry=registry
        )
        self.search_seconds = Histogram("citadel_search_seconds", "Time of a search", ["mode"], registry=registry)
        self.degraded = Counter(
            "citadel_degraded_total", "Answers that went without a stage", ["stage"], registry=registry
        )
        self._jobs = Gauge("citadel_jobs", "Jobs by kind and state", ["kind", "state"], registry=registry)
        self._oldest = Gauge("citadel_oldest_job_seconds", "Age of the oldest open job", registry=registry)
        self._queue = Gauge("citadel_queue_depth", "Messages in Redis that no worker has taken", registry=registry)
        self._success = Gauge("citadel_source_last_success_timestamp_seconds", "Last complete refresh", ["source"],
                              registry=registry)  # fmt: skip

    @contextmanager
    def searching(self, mode: str) -> Iterator[None]:
        """Count and time a search, also one that fails."""
        started = perf_counter()
        outcome = "error"
        try:
            yield
            outcome = "ok"
        finally:
            self.searches.labels(mode, outcome).inc()
            self.search_seconds.labels(mode).observe(perf_counter() - started)

    def render(self, service: Service) -> bytes:
        """The exposition text."""
        with writing(service.store) as conn:
            self._jobs.clear()
            for kind, state, count in jobs.counts(conn):
                self._jobs.labels(kind, state).set(count)
            self._oldest.set(jobs.oldest_open_s(conn))
            for name, at in sources.last_successes(conn):
                self._success.labels(name).set(at)
        try:
            self._queue.set(service.broker.queue_length())
        except BrokerUnavailable:
            self._queue.set(float("nan"))
        return generate_latest(self._registry)
