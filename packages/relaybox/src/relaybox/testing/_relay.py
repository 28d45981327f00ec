"""A relay that publishes only while a test calls it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from relaybox_types.envelope import EventEnvelope

from relaybox.db import Database, load_queries
from relaybox.operations import Row, Selection, State, list_rows
from relaybox.outbox import save_to_outbox
from relaybox.relay import Relay, RelaySignal
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.testing._waiting import WAIT_S

__all__ = ("SteppedRelay", "describe_rows", "unpublished_rows")

_SQL: Final = load_queries(__package__ or "relaybox.testing", "testing.sql")
_ROWS_MAX: Final = 1_000
_SHOWN_MAX: Final = 10
_UNPUBLISHED: Final = (State.PENDING, State.RETRYING, State.FAILED)


class SteppedRelay:
    """A real relay that runs only during a call of a method; the fixture ``relaybox_relay``.

    The relay delivers at least once. The messages are the same as with Kafka's transactions, but a call takes
    0.15 s instead of 0.8 s.
    """

    def __init__(self, database: Database, kafka: KafkaSettings) -> None:
        self._database = database
        self._kafka = kafka
        self._settings = RelaySettings(delivery="at-least-once")

    async def publish_all(self) -> int:
        """Run the relay until all committed rows of the outbox are published; return the number of rows.

        Raises:
            AssertionError: Kafka rejects a row; this is raised after the rows of other keys were published.
                Or a row is not published after 120 s. The message lists up to 10 unpublished rows with their
                errors.
        """
        __tracebackhide__ = True
        if not await unpublished_rows(self._database):
            return 0
        changed = asyncio.Event()

        def on_signal(_: RelaySignal) -> None:
            changed.set()

        relay = Relay(self._database, self._kafka, self._settings, name="test", on_signal=on_signal)
        running = asyncio.create_task(relay.run())
        try:
            await self._wait_until_published(changed, running)
        finally:
            relay.stop()
            await running
        return relay.statistics().published_total

    async def publish(self, *events: EventEnvelope, topic: str = "domain-events") -> int:
        """Write *events* to the outbox for *topic*, as another service does, and call :meth:`publish_all`.

        Returns:
            The number of published rows, including rows that were in the outbox before.
        """
        async with self._database.sessions() as db:
            for event in events:
                await save_to_outbox(topic, event.aggregate_id, event.model_dump(), db)
            await db.commit()
        return await self.publish_all()

    async def _wait_until_published(self, changed: asyncio.Event, running: asyncio.Task[None]) -> None:
        __tracebackhide__ = True
        try:
            async with asyncio.timeout(WAIT_S):
                while (found := await self._count_unpublished())["unpublished"]:
                    # Rows that wait because Kafka did not respond are published when Kafka responds again.
                    if not found["publishable"]:
                        rows = await unpublished_rows(self._database)
                        raise AssertionError(
                            f"the relay cannot publish some rows of the outbox:\n{describe_rows(rows)}"
                        )
                    await _next_change(changed, running)
        except TimeoutError:
            rows = await unpublished_rows(self._database)
            raise AssertionError(
                f"the relay has not published all rows of the outbox within {WAIT_S:g} s:\n"
                f"{describe_rows(rows)}"
            ) from None

    async def _count_unpublished(self) -> Mapping[str, int]:
        async with self._database.connection() as connection:
            [found] = await connection.fetch(_SQL["count_unpublished"])
        return found


async def _next_change(changed: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Wait for a signal of the relay; if the relay has ended, raise its error, or AssertionError."""
    waiting = asyncio.create_task(changed.wait())
    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    changed.clear()
    if running.done():
        running.result()
        raise AssertionError("the relay has ended before it had published all rows; see its log")


async def unpublished_rows(database: Database) -> Sequence[Row]:
    """Return the PENDING, RETRYING and FAILED rows of the outbox, 1,000 at most."""
    async with database.connection() as connection:
        return await list_rows(connection, Selection(), _UNPUBLISHED, rows_max=_ROWS_MAX)


def describe_rows(rows: Sequence[Row]) -> str:
    """Return one line for each of the first 10 *rows*, for an error message."""
    lines = [
        f"  seq {row.seq}  {row.topic}  {row.event_type}  key={row.key!r}  {row.state.upper()}"
        + ("" if row.error_class is None else f": {row.error_class}: {row.error_message}")
        for row in rows[:_SHOWN_MAX]
    ]
    if len(rows) > _SHOWN_MAX:
        at_least = "at least " if len(rows) == _ROWS_MAX else ""
        lines.append(f"  and {at_least}{len(rows) - _SHOWN_MAX} more")
    return "\n".join(lines)
