"""Trace context across tables and topics (W3C Trace Context), by the OpenTelemetry API alone.

No exporter is chosen here: without an SDK the caller's ``traceparent`` still travels through, with
one the application's own spans do.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ("continue_trace", "current_traceparent")

_W3C: Final = TraceContextTextMapPropagator()


def current_traceparent() -> str | None:
    """The ``traceparent`` of the span that runs now, for an event's metadata; None outside of any."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def continue_trace(traceparent: str | None) -> Generator[None]:
    """Run a ``with`` block as part of the trace that *traceparent* names.

    Does nothing when it is None or malformed, or when a span runs already: an instrumented
    application knows better.
    """
    if traceparent is None or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(_W3C.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
