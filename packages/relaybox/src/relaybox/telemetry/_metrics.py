"""Record metrics for Prometheus.

The code that starts a process creates one object of each class, with the registry that the process exposes.
There is no global registry, so that two applications in one process (tests) do not share metrics.

With several API workers, the parent process must set ``PROMETHEUS_MULTIPROC_DIR`` to an empty directory
*before* ``prometheus_client`` is imported anywhere, and remove a dead worker's gauges with
``prometheus_client.multiprocess.mark_process_dead(pid)``. Every scrape then sums all workers.
"""

import os
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import event

from relaybox.db import Database

__all__ = (
    "CommandMetrics",
    "DatabaseMetrics",
    "HttpMetrics",
    "IdempotencyMetrics",
    "cumulative_buckets",
    "exposition",
)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Upper bounds of the buckets for the age of replayed responses, in seconds: 0.1 s to 7 days.
_AGES: Final = (0.1, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)
_BEGAN: Final = "relaybox.began"
#: Methods with a label value of their own. All others have OTHER, so that clients cannot create time series.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Count requests by route template, method and status class; measure durations by route and method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "relaybox_http_requests",
            "HTTP requests, by route, method and status class; 4xx also counts those without response (499).",
            ("route", "method", "status_class"),
            registry=registry,
        )
        self._seconds = Histogram(
            "relaybox_http_request_duration_seconds",
            "Seconds from a request's headers to the end of its response.",
            ("route", "method"),
            registry=registry,
            buckets=_SECONDS,
        )
        #: Cache of the time series by route, method and status class, because ``labels()`` takes longer than
        #: ``inc()``.
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record_response(self, *, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one response.

        Args:
            route: Template of the route (``/orders/{id}``). A path would create a time series for each id.
            method: Counted as ``OTHER`` unless it is one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.
            status: The HTTP status, which is counted by its class, such as ``2xx``.
            duration_s: Seconds from the headers of the request to the end of the response.
        """
        key = (route, method if method in _METHODS else "OTHER", status // 100)
        series = self._series.get(key)
        if series is None:
            count = self._requests.labels(key[0], key[1], f"{key[2]}xx")
            series = self._series[key] = (count, self._seconds.labels(key[0], key[1]))
        series[0].inc()
        series[1].observe(duration_s)


class CommandMetrics:
    """Count commands by type and outcome.

    Outcomes: the status of the command (COMPLETED or RECEIVED); REPLAYED, if the stored response of the same
    idempotency key was sent; or the ``error_code`` of the error.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commands = Counter(
            "relaybox_commands",
            "Commands, by type and outcome.",
            ("command_type", "outcome"),
            registry=registry,
        )

    def record_command(self, *, command_type: str, outcome: str) -> None:
        """Count one command.

        *command_type* is a type that the application declares, or ``unknown``. Text from a client would
        create a time series for each text.
        """
        self._commands.labels(command_type, outcome).inc()


class IdempotencyMetrics:
    """Count requests with an idempotency key by route and outcome; measure the age of replayed responses.

    Outcomes: ``executed`` (the endpoint was executed and its response is stored); ``replayed`` (the stored
    response was sent); ``in_flight`` (another request with the key was running); ``mismatch`` (the key was
    used for a different request); ``malformed`` (an invalid key); ``missing`` (no key, although the endpoint
    requires one); ``tombstone`` (executed by an earlier request, whose response is not stored); ``refused``
    (the response is an error, which is not stored); ``unrecorded`` (the endpoint was executed, but its
    response could not be stored); ``ignored`` (the endpoint did not use the key).
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "relaybox_idempotent_requests",
            "Requests to which an idempotency key applies, by route and outcome.",
            ("route", "outcome"),
            registry=registry,
        )
        self._age = Histogram(
            "relaybox_idempotency_replay_age_seconds",
            "Seconds between a response and its replay.",
            registry=registry,
            buckets=_AGES,
        )

        self._series: dict[tuple[str, str], Counter] = {}

    def record_request(self, *, route: str, outcome: str) -> None:
        """Count one request; *route* is the route's template."""
        series = self._series.get((route, outcome))
        if series is None:
            series = self._series[route, outcome] = self._requests.labels(route, outcome)
        series.inc()

    def record_replay(self, age_s: float) -> None:
        """Record the age of a replayed response: the seconds since the first response."""
        self._age.observe(age_s)


class DatabaseMetrics:
    """Measure the duration of transactions, and count the open and the used connections of the pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "relaybox_transaction_duration_seconds",
            "Seconds for which a transaction holds its connection.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._open = _gauge("relaybox_database_connections_open", "Open connections.", registry)
        self._used = _gauge("relaybox_database_connections_used", "Connections in use.", registry)
        self._most = _gauge("relaybox_database_connections_max", "Maximum number of connections.", registry)

    def watch(self, database: Database) -> None:
        """Begin to measure the connection pool of *database*."""
        pool = database.engine.sync_engine.pool
        self._most.inc(database.settings.pool_size)

        for name, gauge, amount in (
            ("connect", self._open, 1),
            ("close", self._open, -1),
            ("close_detached", self._open, -1),
            ("checkout", self._used, 1),
            ("checkin", self._used, -1),
        ):
            event.listen(pool, name, _step(gauge, amount))
        # A connection is checked out for one transaction, so the time until its checkin is the duration.
        event.listen(pool, "checkout", _begin)
        event.listen(pool, "checkin", self._end)

    def _end(self, _connection: object, record: Any) -> None:
        self._seconds.observe(time.perf_counter() - record.info.pop(_BEGAN, time.perf_counter()))


def cumulative_buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Return the buckets of a ``HistogramMetricFamily``: pairs of an upper bound and a cumulative count.

    Args:
        bounds: Upper bounds, ascending; the result has ``+Inf`` as an additional last bound.
        counts: Number of values in each bucket, not cumulative; the last count is that of values above all
            bounds.
    """
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the body of ``/metrics``, ``text/plain; version=0.0.4``.

    If ``PROMETHEUS_MULTIPROC_DIR`` is set, the body contains the metrics of all workers, and *registry* is
    not read.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(registry)
    every_worker = CollectorRegistry()
    MultiProcessCollector(every_worker)
    return generate_latest(every_worker)


def _begin(_connection: object, record: Any, _proxy: object) -> None:
    record.info[_BEGAN] = time.perf_counter()


def _step(gauge: Gauge, amount: int) -> Callable[..., None]:
    def step(*_connection_and_more: object) -> None:
        gauge.inc(amount)

    return step


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
