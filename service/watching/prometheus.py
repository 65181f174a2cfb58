"""Metrics in Prometheus' format, over HTTP. Labels have few values each; none names a job, a caller or a device."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.errors import ListenError
from service.watching.census import Census, Counts
from service.watching.meter import Call, JobEnd, Meter, Page

_LOG = logging.getLogger(__name__)
_PHASE_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_CALL_BUCKETS: Final = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)


@final
class PrometheusMeter(Meter):
    """Keeps the numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._jobs = Counter(
            "shoal_jobs_finished", "Jobs that are over.", ("outcome", "reason", "strategy", "device_class"),
            registry=self.registry,
        )  # fmt: skip
        self._phases = Histogram(
            "shoal_phase_seconds", "Seconds of one attempt in one phase, waiting for a device included.",
            ("phase", "strategy"), registry=self.registry, buckets=_PHASE_BUCKETS,
        )  # fmt: skip
        self._workers = Gauge("shoal_workers_running", "Worker processes, dry runs included.", registry=self.registry)
        self._deaths = Counter("shoal_worker_deaths", "Workers that died by themselves.", registry=self.registry)
        self._calls = Histogram(
            "shoal_rpc_seconds", "Calls by method and status code, and how long they took.", ("method", "code"),
            registry=self.registry, buckets=_CALL_BUCKETS,
        )  # fmt: skip
        self._received = Counter(
            "shoal_rpc_received_bytes", "Bytes of messages received.", ("method",), registry=self.registry
        )
        self._sent = Counter("shoal_rpc_sent_bytes", "Bytes of messages sent.", ("method",), registry=self.registry)
        self._pages = Histogram(
            "shoal_web_seconds", "Pages by address and HTTP status, and how long they took.", ("route", "status"),
            registry=self.registry, buckets=_CALL_BUCKETS,
        )  # fmt: skip
        self._retries = Counter(
            "shoal_database_retries", "Changes tried again because the database was busy, full or away.",
            registry=self.registry,
        )  # fmt: skip
        self._freed = Counter(
            "shoal_store_freed_bytes", "Bytes taken out of the store because nobody named them.", registry=self.registry
        )
        self._ready = Gauge("shoal_ready", "1 where a readiness check passes.", ("check",), registry=self.registry)

    def job_ended(self, end: JobEnd) -> None:
        """Counts a job that is over."""
        self._jobs.labels(end.outcome, end.reason, end.strategy, end.device_class).inc()

    def phases_took(self, strategy: str, seconds: Mapping[str, float]) -> None:
        """Takes how long each phase took."""
        for phase, took in seconds.items():
            self._phases.labels(phase, strategy).observe(took)

    def worker_started(self) -> None:
        """Counts a worker that runs."""
        self._workers.inc()

    def worker_ended(self, *, died: bool) -> None:
        """Counts one that runs no longer."""
        self._workers.dec()
        self._deaths.inc(int(died))

    def call_ended(self, call: Call) -> None:
        """Counts a call."""
        self._calls.labels(call.method, call.code).observe(call.seconds)
        self._received.labels(call.method).inc(call.received)
        self._sent.labels(call.method).inc(call.sent)

    def page_ended(self, page: Page) -> None:
        """Counts a page."""
        self._pages.labels(page.route, str(page.status)).observe(page.seconds)

    def database_retried(self) -> None:
        """Counts a change that is tried again."""
        self._retries.inc()

    def store_freed(self, size_bytes: int) -> None:
        """Counts bytes that were taken out of the store."""
        self._freed.inc(size_bytes)

    def checked(self, check: str, *, passed: bool) -> None:
        """Takes what a readiness check found."""
        self._ready.labels(check).set(int(passed))


@final
class CensusCollector(Collector):
    """Counts what the database and the disk hold, when asked."""

    def __init__(self, census: Census) -> None:
        """Counts in the thread that asks."""
        self._census = census

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Returns nothing: the registry need not ask the database what there will be."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Returns the numbers; without those that cannot be had now."""
        try:
            return _families(self._census.take())
        except Exception:  # noqa: BLE001 (the rest of the metrics must be had above all when the database cannot)
            _LOG.exception("cannot count jobs and devices for the metrics")
            return ()


def _families(counts: Counts) -> list[GaugeMetricFamily]:
    single = {
        "shoal_queue_length": ("Jobs that wait for a worker.", float(counts.jobs["QUEUED"])),
        "shoal_queue_oldest_seconds": ("Age of the job that waits for longest; 0 where none waits.", counts.oldest),
        "shoal_disk_free_bytes": ("Free on the disk of the state folder.", float(counts.free_bytes)),
    }
    found = [GaugeMetricFamily(name, text, value=value) for name, (text, value) in single.items()]
    by_state = {
        "shoal_jobs": ("Jobs by state.", counts.jobs),
        "shoal_devices": ("Devices that agents speak for, by state.", counts.devices),
        "shoal_device_work": ("Pieces of work for devices, by state.", counts.work),
    }
    for name, (text, values) in by_state.items():
        family = GaugeMetricFamily(name, text, labels=("state",))
        for state, count in values.items():
            family.add_metric((state.lower(),), count)
        found.append(family)
    return found


@final
class Exposition:
    """An HTTP server that answers with the metrics of one registry, in threads of its own."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Listens.

        Args:
            registry: Whose metrics.
            address: `HOST:PORT`; port 0 takes a free one.

        Raises:
            ListenError: The address cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except (OSError, OverflowError) as exc:
            raise ListenError(f"cannot listen on {address} for metrics: is it in use, or not ours?") from exc
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
