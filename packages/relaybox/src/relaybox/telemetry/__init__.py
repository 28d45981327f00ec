"""Provide logs, metrics, health checks and trace context."""

from relaybox.telemetry._address import AddressUnusable, open_listener
from relaybox.telemetry._checks import CHECK_LIMIT_S, SharedCheck, check_postgres
from relaybox.telemetry._health import Check, CheckResult, Checks, HealthReport, HealthState, run_checks
from relaybox.telemetry._health_app import HealthAddressUnusable, health_app, serve_health
from relaybox.telemetry._logging import (
    LogLevel,
    configure_logging,
    ensure_logging,
    log_context,
    traceback_of,
)
from relaybox.telemetry._metrics import (
    CommandMetrics,
    DatabaseMetrics,
    HttpMetrics,
    IdempotencyMetrics,
    cumulative_buckets,
    exposition,
)
from relaybox.telemetry._redaction import REDACTED, redact, redact_text
from relaybox.telemetry._tracing import continue_trace, current_traceparent

__all__ = (
    "CHECK_LIMIT_S",
    "REDACTED",
    "AddressUnusable",
    "Check",
    "CheckResult",
    "Checks",
    "CommandMetrics",
    "DatabaseMetrics",
    "HealthAddressUnusable",
    "HealthReport",
    "HealthState",
    "HttpMetrics",
    "IdempotencyMetrics",
    "LogLevel",
    "SharedCheck",
    "check_postgres",
    "configure_logging",
    "continue_trace",
    "cumulative_buckets",
    "current_traceparent",
    "ensure_logging",
    "exposition",
    "health_app",
    "log_context",
    "open_listener",
    "redact",
    "redact_text",
    "run_checks",
    "serve_health",
    "traceback_of",
)
