"""Pause work until something happens outside: an event, a command, a person, a deadline (G44).

A flow runs in an engine, such as Prefect or Relaybox's own. The engine requests a pause, suspends the flow
and confirms this. Code that knows the correlation id resumes or cancels the pause; a sweeper expires it.
"""

from relaybox.flows._definition import FlowDefinition, FlowFunction, flow, start_flow
from relaybox.flows._engine import FlowExpiry, flow_subscription, flow_workers, park_flow
from relaybox.flows._errors import (
    FlowAlreadyPaused,
    FlowAlreadyResumed,
    FlowCancelled,
    FlowChanged,
    FlowDocumentInvalid,
    FlowEngineUnavailable,
    FlowError,
    FlowExpired,
    FlowInvalid,
    FlowRunEnded,
    FlowRunError,
    FlowRunRefused,
    FlowRunRunning,
    FlowRunUnknown,
    FlowUnknown,
)
from relaybox.flows._external import EngineRun, FlowEngine, engine_workers, pause_run
from relaybox.flows._flow import Flow, StepFunction
from relaybox.flows._handles import (
    AGGREGATE_TYPE,
    CANCELLED,
    EXPIRED,
    PAUSE_REQUESTED,
    PAUSED,
    RESUME_RECEIVED,
    RESUMED,
    Handle,
    cancel,
    chain_of,
    confirm_paused,
    expire_handles,
    fetch_handle,
    pause,
    resume,
)
from relaybox.flows._metrics import FlowMetrics

__all__ = (
    "AGGREGATE_TYPE",
    "CANCELLED",
    "EXPIRED",
    "PAUSED",
    "PAUSE_REQUESTED",
    "RESUMED",
    "RESUME_RECEIVED",
    "EngineRun",
    "Flow",
    "FlowAlreadyPaused",
    "FlowAlreadyResumed",
    "FlowCancelled",
    "FlowChanged",
    "FlowDefinition",
    "FlowDocumentInvalid",
    "FlowEngine",
    "FlowEngineUnavailable",
    "FlowError",
    "FlowExpired",
    "FlowExpiry",
    "FlowFunction",
    "FlowInvalid",
    "FlowMetrics",
    "FlowRunEnded",
    "FlowRunError",
    "FlowRunRefused",
    "FlowRunRunning",
    "FlowRunUnknown",
    "FlowUnknown",
    "Handle",
    "StepFunction",
    "cancel",
    "chain_of",
    "confirm_paused",
    "engine_workers",
    "expire_handles",
    "fetch_handle",
    "flow",
    "flow_subscription",
    "flow_workers",
    "park_flow",
    "pause",
    "pause_run",
    "resume",
    "start_flow",
)
