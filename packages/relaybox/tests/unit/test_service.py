"""Services that run and end together."""

import asyncio
import os
import signal

import pytest
from relaybox.errors import SettingsError
from relaybox.service import run_until_signal, service_resources
from relaybox.settings import RelaySettings


class Worker:
    """A service that records its stop, and raises *failure* if there is one."""

    def __init__(self, stopped: list["Worker"], failure: Exception | None = None) -> None:
        self.stopped = stopped
        self.started = asyncio.Event()
        self._failure = failure
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        self.started.set()
        if self._failure is not None:
            raise self._failure
        await self._stopping.wait()

    def stop(self) -> None:
        self.stopped.append(self)
        self._stopping.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_services_in_the_given_order(number: signal.Signals) -> None:
    stopped: list[Worker] = []
    first, second = Worker(stopped), Worker(stopped)
    running = asyncio.create_task(run_until_signal(first, second))
    await first.started.wait()
    await second.started.wait()
    os.kill(os.getpid(), number)
    await running
    assert stopped[:2] == [first, second]


async def test_end_of_one_service_stops_the_others() -> None:
    stopped: list[Worker] = []
    short, long = Worker(stopped), Worker(stopped)
    running = asyncio.create_task(run_until_signal(short, long))
    await long.started.wait()
    short.stop()
    await running
    assert long in stopped


async def test_error_of_a_service_is_raised_after_all_have_ended() -> None:
    stopped: list[Worker] = []
    with pytest.raises(LookupError, match="gone"):
        await run_until_signal(Worker(stopped), Worker(stopped, LookupError("gone")))
    assert len(stopped) == 2


async def test_signal_handlers_are_removed_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    worker = Worker([])
    running = asyncio.create_task(run_until_signal(worker))
    await worker.started.wait()
    worker.stop()
    await running
    assert signal.getsignal(signal.SIGTERM) is before


async def test_start_names_every_malformed_setting_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HEALTH_PORT", "KAFKA_PORT", "POSTGRES_PORT", "RETENTION_TASKS_H", "RELAY_BATCH_SIZE")
    for name in names:
        monkeypatch.setenv(name, "many")
    with pytest.raises(SettingsError) as raised:
        async with service_resources("test", settings=(RelaySettings,)):
            pass
    assert tuple(line.partition(":")[0] for line in str(raised.value).splitlines()) == names
