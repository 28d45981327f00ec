"""Read which messages operators have requested to park."""

from collections.abc import Mapping
from typing import Final

from relaybox.consumers._errors import ParkedByOperator
from relaybox.consumers._message import Message, Partition
from relaybox.db import Database, load_queries

__all__ = ("ParkRequests",)

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
#: How many requests of a group its consumers read at a time; later requests are read when these are done.
_REQUESTS_MAX: Final = 1_000


class ParkRequests:
    """The messages that one group has to park on request, as of the last :meth:`refresh`."""

    def __init__(self, group: str) -> None:
        self._group = group
        #: Per message (partition and offset) the name of the operator and the reason for the request.
        self._requested: dict[tuple[Partition, int], tuple[str, str]] = {}

    async def refresh(self, database: Database, positions: Mapping[Partition, int]) -> None:
        """Read the oldest 1,000 requests of the group, and delete the requests for finished messages.

        Also deletes what a :class:`CrashWatch` recorded about finished messages.

        Args:
            database: The database that has the requests.
            positions: Per partition the offset before which every message is finished.

        Raises:
            DatabaseError: PostgreSQL is unavailable, or rejects the statement.
        """
        topics, numbers = [topic for topic, _ in positions], [number for _, number in positions]
        async with database.service_connection() as connection:
            rows = await connection.fetch(
                _SQL["park_requests"], self._group, topics, numbers, list(positions.values()), _REQUESTS_MAX
            )
        self._requested = {
            ((row["topic"], row["partition"]), row["message_offset"]): (row["requested_by"], row["reason"])
            for row in rows
        }

    def check(self, message: Message) -> None:
        """Raise an error if an operator has requested to park *message*.

        Raises:
            ParkedByOperator: The message must be parked without a call of its handler.
        """
        if self._requested and (requested := self._requested.get((message.partition, message.offset))):
            by, reason = requested
            raise ParkedByOperator(by=by, reason=reason)
