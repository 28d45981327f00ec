"""Pass trace context (W3C Trace Context) through tables and topics; only the OpenTelemetry API is needed.

Without an OpenTelemetry SDK the ``traceparent`` of the request is passed on unchanged; with an SDK, that of
the application's current span.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ("continue_trace", "current_traceparent")

_W3C: Final = TraceContextTextMapPropagator()


def current_traceparent() -> str | None:
    """Return the ``traceparent`` of the current span, for an event's metadata; None without a span."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def continue_trace(traceparent: str | None) -> Generator[None]:
    """Run a ``with`` block as part of the trace that *traceparent* names.

    Has no effect if *traceparent* is None or malformed. Has no effect either if a span is active: then
    OpenTelemetry's instrumentation of the application has already continued the trace.
    """
    if traceparent is None or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(_W3C.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
