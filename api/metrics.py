"""Prometheus metrics: a tenant's counters in this process, and on each scrape what Postgres and Redis tell."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api.service import Service
from core.errors import BrokerUnavailable
from core.records import Principal, Source
from store import access, jobs, schedules, sources
from store.pool import reading_tenant, writing


class Metrics:
    """One registry a tenant: a scrape shows its caller's own, and two apps in a process do not share counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenants: dict[UUID, TenantMetrics] = {}

    def of(self, tenant_id: UUID) -> "TenantMetrics":
        """The tenant's metrics."""
        with self._lock:
            if tenant_id not in self._tenants:
                self._tenants[tenant_id] = TenantMetrics(tenant_id)
            return self._tenants[tenant_id]


class TenantMetrics:
    """A tenant's counters and gauges."""

    def __init__(self, tenant_id: UUID) -> None:
        self._tenant_id = tenant_id
        self._rendering = threading.Lock()  # the gauges are one caller's at a time
        self._registry = CollectorRegistry()
        registry = self._registry
        self.searches = Counter(
            "citadel_searches_total", "Searches answered or failed", ["mode", "outcome"], registry=registry
        )
        self.search_seconds = Histogram("citadel_search_seconds", "Time of a search", ["mode"], registry=registry)
        self.degraded = Counter(
            "citadel_degraded_total", "Answers that went without a stage", ["stage"], registry=registry
        )
        self.recalled = Counter("citadel_answers_recalled_total", "Answers whose ranking was kept of an equal search",
                                registry=registry)  # fmt: skip
        self._jobs = Gauge("citadel_jobs", "Jobs by kind and state", ["kind", "state"], registry=registry)
        self._oldest = Gauge("citadel_oldest_job_seconds", "Age of the oldest open job", registry=registry)
        self._queue = Gauge("citadel_queue_depth", "Messages in Redis that no worker has taken, of all tenants",
                            registry=registry)  # fmt: skip
        self._lag = Gauge("citadel_lexical_lag_seconds", "Age of the first change that the lexical replica lacks",
                          registry=registry)  # fmt: skip
        gauges = {
            "last_success": "Last complete refresh",
            "next_refresh": "Next scheduled refresh",
            "content_as_of": "What the source held then is held here",
            "permissions_as_of": "Who may see it there then, may see it here",
        }
        self._sources = {name: Gauge(f"citadel_source_{name}_timestamp_seconds", told, ["source"], registry=registry)
                         for name, told in gauges.items()}  # fmt: skip
        labels = ["schedule", "golden", "measure"]
        self._eval_value = Gauge("citadel_eval_value", "Of the last scheduled run", labels, registry=registry)
        self._eval_alarm = Gauge("citadel_eval_alarm", "1 when the last scheduled run raised an alarm on it", labels,
                                 registry=registry)  # fmt: skip
        self._eval_at = Gauge("citadel_eval_last_run_timestamp_seconds", "End of the last scheduled run",
                              labels[:2], registry=registry)  # fmt: skip
        self._behind = Gauge("citadel_source_lag_seconds", "Age of the first due refresh that is not done", ["source"],
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

    def render(self, service: Service, within: Principal | None) -> bytes:
        """The exposition text; jobs are counted within what a principal sees, or all."""
        with self._rendering:
            self._set(service, within)
            return generate_latest(self._registry)

    def _set(self, service: Service, within: Principal | None) -> None:
        limited = within is not None
        with reading_tenant(service.store, self._tenant_id) as conn:  # whose policies show this tenant's rows alone
            scope = None if within is None else access.enter_scope(conn, within, service.store.scopes)
            self._jobs.clear()
            for kind, state, count in jobs.counts(conn, in_scope=limited):
                self._jobs.labels(kind, state).set(count)
            self._oldest.set(jobs.oldest_open_s(conn, in_scope=limited))
            # any change of the tenant counts: not for whoever sees a part of it
            lag = float("nan") if limited else service.searcher.lexical.lag_s(conn, self._tenant_id)
            self._lag.set(lag)
            self._tell(sources.all_of(conn, self._tenant_id, scope))
        self._tell_evaluations(service, limited)
        try:
            self._queue.set(service.broker.queue_length())
        except BrokerUnavailable:
            self._queue.set(float("nan"))

    def _tell_evaluations(self, service: Service, limited: bool) -> None:
        """What scheduled runs found: measured over what several people see, so not for whoever sees a part."""
        for gauge in (self._eval_value, self._eval_alarm, self._eval_at):
            gauge.clear()
        if limited:
            return
        with writing(service.store) as conn:  # no reader sees what runs found
            last = schedules.latest(conn, self._tenant_id)
            found = [(each, last[each.id]) for each in schedules.all_of(conn, self._tenant_id) if each.id in last]
        for each, result in found:
            self._eval_at.labels(each.name, each.golden).set(result.at.timestamp())
            for check in result.checks:
                self._eval_value.labels(each.name, each.golden, check.name).set(check.value)
                self._eval_alarm.labels(each.name, each.golden, check.name).set(check.alarm)

    def _tell(self, found: list[Source]) -> None:
        """How fresh each source's documents are; those that are pushed to have no such figures."""
        self._behind.clear()
        for gauge in self._sources.values():
            gauge.clear()
        for source in found:
            if source.kind != "api":
                self._behind.labels(source.name).set(source.lag_s)
            times = {"last_success": source.last_success_at, "next_refresh": source.next_due_at,
                     "content_as_of": source.content_as_of, "permissions_as_of": source.permissions_as_of}  # fmt: skip
            for name, at in times.items():
                if at is not None:
                    self._sources[name].labels(source.name).set(at.timestamp())
