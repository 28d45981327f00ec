"""The message relay, put together."""

import asyncio
from functools import partial
from typing import Final

import structlog

from relaybox.db import Database
from relaybox.relay._errors import HistoryChanged
from relaybox.relay._keeper import wait_at_most
from relaybox.relay._session import Session
from relaybox.relay._signals import OnSignal, Signal
from relaybox.relay._statistics import Counters, Statistics
from relaybox.settings import KafkaSettings, RelaySettings

__all__ = ("Relay",)

#: Two servers behind one address that both take writes must not make a relay start over without end.
_START_OVER_PAUSE_S: Final = 0.5
_log = structlog.get_logger(__name__)


def _ignore(_signal: Signal) -> None:
    """Do nothing."""


class Relay:
    """Publishes the outbox of one database; any number of relays share the work without configuration.

    An event is never lost, and per key the first appearances are in commit order (G20, G21). Exactly
    once, readers of committed messages find each event once, whatever died (G31); at least once, an
    event may reach the topic again, with the same ``ce_id``, if a process or a server dies between
    acknowledgement and mark. It takes five connections outside *database*'s pool, and a sixth
    while it takes lanes over.
    """

    def __init__(
        self,
        database: Database,
        kafka: KafkaSettings,
        settings: RelaySettings,
        *,
        name: str = "relay",
        on_signal: OnSignal = _ignore,
    ) -> None:
        """Describe the relay; nothing connects before :meth:`run`. *name* is for people only."""
        self._name = name
        self._signal = on_signal
        self._counters = Counters()
        self._new_session = partial(Session, database, kafka, settings, self._counters, on_signal)
        self._session = self._new_session()
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        look = self.statistics()
        lanes = f"lanes {','.join(map(str, look.lanes))}" if look.lanes else "no lanes"
        link = "link up" if look.link_up else "link down"
        return f"<Relay {self._name!r} [{lanes} | {look.in_flight} in flight | {link}]>"

    def statistics(self) -> Statistics:
        """What it has done and holds, for metrics, operators and tests; costs nothing."""
        return self._session.statistics()

    def stop(self) -> None:
        """Ask :meth:`run` to end; to be called in its event loop, for instance by a signal handler."""
        self._stopping.set()
        self._session.stop()

    async def run(self) -> None:
        """Relay until :meth:`stop`, then return within 10 s: nothing half-marked, the lanes given back (G27).

        PostgreSQL or Kafka away is waited out, at any time, and so are a failover (G35) and a statement that
        PostgreSQL refuses. What is raised here, in an exception group, is a defect.
        """
        _log.info("relay started", relay=self._name)
        await self._run_session()
        while not self._stopping.is_set():
            self._session = self._new_session()
            await self._run_session()
        self._signal(Signal.STOPPED)
        _log.info("relay stopped", relay=self._name)

    async def _run_session(self) -> None:
        """Relay in one history of PostgreSQL, until it changes or the relay is stopped."""
        try:
            await self._session.run(self._stopping)
        except* HistoryChanged as changed:
            _log.error(
                "relay starts over in another history of PostgreSQL",
                error_code=HistoryChanged.error_code,
                reason=str(changed.exceptions[0]),
            )
            self._signal(Signal.HISTORY_CHANGED)
            await wait_at_most(self._stopping, _START_OVER_PAUSE_S)
