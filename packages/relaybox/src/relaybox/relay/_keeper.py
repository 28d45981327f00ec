"""The relay's second connection: heartbeats for its lanes, and an ear for notifications."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import structlog

from relaybox.db import DatabaseError, DedicatedConnection, map_service_errors
from relaybox.outbox import OUTBOX_CHANNEL, channel_of
from relaybox.relay._backoff import link_pause_s
from relaybox.relay._floor import LowWatermark
from relaybox.relay._history import Connections
from relaybox.relay._lanes import LANES_CHANNEL, Lanes, Report
from relaybox.relay._rows import use_partial_indexes
from relaybox.relay._signals import OnSignal, Signal
from relaybox.relay._statistics import Counters
from relaybox.settings import RelaySettings

__all__ = ("LeaseHeartbeat",)

#: Two heartbeats in a row may be lost.
_RENEWALS_PER_LEASE: Final = 3
_log = structlog.get_logger(__name__)


class LeaseHeartbeat:
    """Keeps the lanes' leases and wakes the pump; ends by cancellation only.

    A connection of its own, because a heartbeat must not wait for a batch, and LISTEN lives and
    dies with its connection.
    """

    def __init__(
        self,
        connections: Connections,
        settings: RelaySettings,
        lanes: Lanes,
        counters: Counters,
        on_signal: OnSignal,
        troubles: Callable[[], Sequence[str]],
    ) -> None:
        """*troubles* returns why some rows are not published, for operators."""
        self._troubles = troubles
        self._connections = connections
        self._settings = settings
        self._lanes = lanes
        self._counters = counters
        self._signal = on_signal
        #: Set whenever there may be something to publish; the pump clears it before it looks.
        self.work_available = asyncio.Event()
        #: What operators are told of the way to Kafka; kept by the pump.
        self.breaker = "closed"
        #: Set by whoever wants the next heartbeat now: a lane can be given back, another relay joined.
        self.renew_now = asyncio.Event()
        #: Where the pump's polls begin; the pump makes it rise.
        self.low_watermark = LowWatermark()

    async def run(self) -> None:
        """Keep the lanes for ever; PostgreSQL away is waited out, the leases then end by themselves."""
        failures = 0
        while True:
            try:
                async with self._connections.connected() as connection:
                    await use_partial_indexes(connection)
                    await self._listen(connection)
                    self.work_available.set()  # what was notified before LISTEN is not told again
                    async for _ in self._renewals(connection):
                        if failures:
                            _log.info("relay has reached PostgreSQL again")
                            failures = 0
            except DatabaseError as error:
                failures += 1
                if failures == 1:
                    _log.warning(
                        "relay has lost PostgreSQL, trying again",
                        error_code=error.error_code,
                        reason=str(error),
                    )
                await asyncio.sleep(link_pause_s(failures))

    async def _renewals(self, connection: DedicatedConnection) -> AsyncGenerator[None]:
        while True:
            self.renew_now.clear()
            late = self._lanes.has_expired_lease()
            report = Report(
                breaker=self.breaker,
                published_total=self._counters.published_total,
                troubles=self._troubles(),
            )
            if await self._lanes.renew(connection, report):
                _log.info("relay lanes changed", lanes=self._lanes.owned(), members=self._lanes.members)
                self.work_available.set()
                self._signal(Signal.LANES_CHANGED)
            if late or self._lanes.split_wanted:
                self.work_available.set()  # rows may wait for the lanes that were assigned
            yield
            await wait_at_most(self.renew_now, self._settings.lease_s / _RENEWALS_PER_LEASE)

    async def _listen(self, connection: DedicatedConnection) -> None:
        schema = self._connections.schema_name
        channels = {
            channel_of(OUTBOX_CHANNEL, schema): self.work_available,
            channel_of(LANES_CHANNEL, schema): self.renew_now,
        }

        def on_notification(_connection: Any, _pid: int, channel: str, _payload: object) -> None:
            channels[channel].set()

        with map_service_errors():
            for channel in channels:
                await connection.add_listener(channel, on_notification)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, or until *seconds* have passed."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
