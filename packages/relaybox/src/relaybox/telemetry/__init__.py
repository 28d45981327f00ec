"""What operators see: logs, metrics, health, trace context."""

from relaybox.telemetry._checks import check_kafka, check_postgres
from relaybox.telemetry._health import Check, CheckResult, Checks, HealthReport, HealthState, examine
from relaybox.telemetry._health_app import HealthPortTaken, health_app, serve_health
from relaybox.telemetry._logging import LogLevel, configure_logging, log_context
from relaybox.telemetry._metrics import CommandMetrics, DatabaseMetrics, HttpMetrics, exposition
from relaybox.telemetry._redaction import REDACTED, redact
from relaybox.telemetry._tracing import continue_trace, current_traceparent

__all__ = (
    "REDACTED",
    "Check",
    "CheckResult",
    "Checks",
    "CommandMetrics",
    "DatabaseMetrics",
    "HealthPortTaken",
    "HealthReport",
    "HealthState",
    "HttpMetrics",
    "LogLevel",
    "check_kafka",
    "check_postgres",
    "configure_logging",
    "continue_trace",
    "current_traceparent",
    "examine",
    "exposition",
    "health_app",
    "log_context",
    "redact",
    "serve_health",
)
