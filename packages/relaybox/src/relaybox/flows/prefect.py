"""Let runs of Prefect 3 wait for a resume; needs the extra ``prefect``.

A flow calls :func:`wait_for_resume`, which suspends its run in Prefect: the run's process ends. A
:class:`~relaybox.tasks.TaskRunner` with :class:`PrefectEngine` resumes the run, and Prefect calls the flow's
function from its start; tasks whose results are persisted are not repeated. The flow needs a deployment, and
``persist_result=True``.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, cast
from uuid import UUID

from relaybox_types.enums import HandleStatus

from relaybox.db import Database
from relaybox.errors import SettingsError
from relaybox.flows._errors import (
    FlowCancelled,
    FlowEngineUnavailable,
    FlowExpired,
    FlowRunEnded,
    FlowRunRefused,
    FlowRunRunning,
    FlowRunUnknown,
)
from relaybox.flows._external import EngineRun, pause_run
from relaybox.flows._handles import Handle, fetch_handle

__all__ = ("PrefectEngine", "wait_for_resume")

_NAME: Final = "prefect"
#: Responses after which the same request may succeed later.
_UNAVAILABLE: Final = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
)


def _prefect() -> Any:
    """Import Prefect at its first use: the import takes seconds, and Prefect is an optional dependency.

    Raises:
        SettingsError: Prefect is not installed.
    """
    try:
        import prefect.client.orchestration  # pyright: ignore[reportMissingImports]
        import prefect.context  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import prefect.exceptions  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import prefect.flow_runs  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import prefect.settings  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import prefect.states  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise SettingsError("Prefect is not installed; run `pip install 'relaybox[prefect]'`") from error
    return cast("Any", prefect)


class PrefectEngine:
    """A :class:`~relaybox.flows.FlowEngine` for the flow runs of a Prefect 3 server.

    Prefect's own settings name the server: ``PREFECT_API_URL``, ``PREFECT_API_KEY``.

    Raises:
        SettingsError: ``prefect`` is not installed, or ``PREFECT_API_URL`` is not set.
    """

    name = _NAME

    def __init__(self) -> None:
        self._api_url: str | None = _prefect().settings.PREFECT_API_URL.value()
        if self._api_url is None:
            raise SettingsError("PREFECT_API_URL is not set; set it to the API of your Prefect server")

    def __repr__(self) -> str:
        return f"<PrefectEngine {self._api_url}>"

    async def suspend(self, run: EngineRun) -> None:
        """Check that *run* has suspended itself for this pause, as :func:`wait_for_resume` does.

        Raises:
            FlowEngineUnavailable: The server does not respond.
            FlowRunEnded: The run has ended instead.
            FlowRunRunning: The run is not suspended yet.
            FlowRunUnknown: The server has no such run.
        """
        async with _client(run) as client:
            state = await _state(client, run)
        if _is_suspended(state, run):
            return
        if state.is_final():
            raise FlowRunEnded(_NAME, run.run_id, state.name)
        raise FlowRunRunning(f"the flow run {run.run_id} is {state.name} and not suspended yet")

    async def resume(self, run: EngineRun, payload: Mapping[str, Any]) -> None:
        """Resume *run* if it is suspended for this pause.

        *payload* becomes the input of a run that was suspended with ``wait_for_input``. A run that called
        :func:`wait_for_resume` reads *payload* from the pause.

        Raises:
            FlowEngineUnavailable: The server does not respond.
            FlowRunEnded: The run ended before it was resumed, for example by a cancellation in Prefect.
            FlowRunRefused: Prefect rejects the resume, for example because of the input.
            FlowRunRunning: Another call changed the run at the same time.
            FlowRunUnknown: The server has no such run.
        """
        async with _client(run) as client:
            state = await _state(client, run)
            if _is_suspended(state, run):
                result = await client.resume_flow_run(UUID(run.run_id), run_input=dict(payload))
                _check_accepted(result, run)
            elif state.is_final() and not await _went_on(client, run):
                raise FlowRunEnded(_NAME, run.run_id, state.name)

    async def cancel(self, run: EngineRun, *, reason: str) -> None:
        """Cancel *run*; a run that has ended or was deleted stays as it is.

        Raises:
            FlowEngineUnavailable: The server does not respond.
            FlowRunRefused: Prefect rejects the cancellation.
            FlowRunRunning: Another call changed the run at the same time.
        """
        states = _prefect().states
        try:
            async with _client(run) as client:
                state = await _state(client, run)
                if state.is_final():
                    return
                # A suspended run has no process that would end a run in the state Cancelling.
                ending = states.Cancelled if state.is_paused() else states.Cancelling
                result = await client.set_flow_run_state(UUID(run.run_id), ending(message=reason))
                if not (result.state and (result.state.is_cancelled() or result.state.is_cancelling())):
                    _check_accepted(result, run)
        except FlowRunUnknown:
            return


async def wait_for_resume(
    database: Database,
    name: str,
    *,
    timeout: timedelta,  # noqa: ASYNC109 - days; no task waits for it
    chain_id: UUID | None = None,
) -> dict[str, Any]:
    """Suspend the current flow run until :func:`relaybox.flows.resume` is called with ``{run id}/{name}``.

    Call this function in an asynchronous flow, not in a task of the flow, and do not catch its exceptions:
    Prefect suspends the run by an exception. When the run is resumed, Prefect calls the flow's function
    again, and then this call returns.

    Args:
        database: The database of the pauses.
        name: Name of the wait, unique in the flow.
        timeout: The pause expires after this time, counted from the first call; then the run is cancelled.
        chain_id: Chain to which the pause's events belong; None: the id of the flow run.

    Returns:
        The payload of the resume.

    Raises:
        FlowCancelled, FlowExpired: The pause was cancelled or has expired; Prefect is about to cancel the
            run.
        RuntimeError: The caller is not in a flow run of Prefect, or Prefect cannot suspend the run, for
            example because it is not a run of a deployment.
    """
    prefect = _prefect()
    context = prefect.context.FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("wait_for_resume works only in a flow run of Prefect; call it in a Prefect flow")
    run_id = str(context.flow_run.id)
    run = EngineRun(engine=_NAME, run_id=run_id, correlation_id=f"{run_id}/{name}")
    handle = await database.run_in_transaction(
        lambda db: pause_run(db, run, expires_in=timeout, chain_id=chain_id)
    )
    if handle.status in (HandleStatus.RESUMED, HandleStatus.EXPIRED):
        return _payload_of(handle)
    try:
        # Prefect refuses a key that it has seen. Each execution has its own key, so that a run that was
        # resumed in Prefect suspends itself again.
        await prefect.flow_runs.asuspend_flow_run(key=f"{run.correlation_id}@{context.flow_run.run_count}")
    except prefect.exceptions.Pause:
        if handle.status is HandleStatus.PAUSED:
            await _catch_up(database, run)
        raise
    raise RuntimeError(f"Prefect did not suspend the flow run {run_id}; retry the run in Prefect")


async def _catch_up(database: Database, run: EngineRun) -> None:
    """Resume or cancel *run*, which has suspended itself again, if its pause has already ended.

    An operator can resume a run in Prefect although its pause still waits. If the pause ends while such a run
    executes, the driver calls Prefect before the run suspends itself again. The driver does not call again,
    so without this function the run would remain suspended.
    """
    async with database.service_connection() as connection:
        handle = await fetch_handle(connection, run.correlation_id)
    if handle is not None and handle.status is HandleStatus.RESUMED:
        await PrefectEngine().resume(run, handle.resume_payload or {})
    elif handle is not None and handle.status is HandleStatus.EXPIRED:
        await PrefectEngine().cancel(run, reason=f"the pause {run.correlation_id} has ended")


def _payload_of(handle: Handle) -> dict[str, Any]:
    if handle.cancelled:
        raise FlowCancelled(handle.correlation_id)
    if handle.status is HandleStatus.EXPIRED:
        raise FlowExpired(handle.correlation_id, handle.expires_at)
    return handle.resume_payload or {}


@asynccontextmanager
async def _client(run: EngineRun) -> AsyncGenerator[Any]:
    """Connect to the server in Prefect's settings; map Prefect's errors to errors of this package."""
    prefect = _prefect()
    httpx = prefect.client.orchestration.httpx
    try:
        async with prefect.client.orchestration.get_client() as client:
            yield client
    except prefect.exceptions.ObjectNotFound as error:
        raise FlowRunUnknown(_NAME, run.run_id) from error
    except httpx.HTTPStatusError as error:
        status: int = error.response.status_code
        if status == HTTPStatus.NOT_FOUND:
            raise FlowRunUnknown(_NAME, run.run_id) from error
        if status in _UNAVAILABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise FlowEngineUnavailable(f"Prefect responded {status}; check its server and key") from error
        raise FlowRunRefused(
            f"Prefect responded {status} for the flow run {run.run_id}; see the log of Prefect's server"
        ) from error
    except httpx.HTTPError as error:
        raise FlowEngineUnavailable(
            f"Prefect does not respond ({type(error).__name__}); check PREFECT_API_URL and the server"
        ) from error


async def _state(client: Any, run: EngineRun) -> Any:
    try:
        run_id = UUID(run.run_id)
    except ValueError as error:
        raise FlowRunUnknown(_NAME, run.run_id) from error
    found = await client.read_flow_run(run_id)
    if found.state is None:
        raise FlowRunRunning(f"the flow run {run.run_id} has no state yet")
    return found.state


def _is_suspended(state: Any, run: EngineRun) -> bool:
    """Return whether *state* is the suspension for this pause, not for another one of the run."""
    key: str = state.state_details.pause_key or ""
    return state.is_paused() and key.rpartition("@")[0] == run.correlation_id


async def _went_on(client: Any, run: EngineRun) -> bool:
    """Return whether the ended *run* continued after its suspension for this pause, or never had one."""
    states = sorted(await client.read_flow_run_states(UUID(run.run_id)), key=lambda one: one.timestamp)
    suspended = [number for number, state in enumerate(states) if _is_suspended(state, run)]
    return not suspended or not states[suspended[-1] + 1].is_final()


def _check_accepted(result: Any, run: EngineRun) -> None:
    # The reason that Prefect gives is left out, because it may quote the input of the run.
    if result.status.value == "REJECT":
        raise FlowRunRefused(
            f"Prefect refuses to change the flow run {run.run_id}; its state, input and deployment are in "
            "Prefect's user interface"
        )
    if result.status.value != "ACCEPT":
        raise FlowRunRunning(
            f"the flow run {run.run_id} was changed by another call ({result.status.value}); the "
            "task runner repeats the call every second"
        )
