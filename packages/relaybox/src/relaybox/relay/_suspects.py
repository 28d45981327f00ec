"""Which row of a refused transaction was at fault. Pure."""

from collections.abc import Sequence
from uuid import UUID

from confluent_kafka import KafkaError

from relaybox.relay._delivery import LaneBatch
from relaybox.relay._errors import LinkDown, RecordRefused, RowFault
from relaybox.relay._messages import Message

__all__ = ("RejectionIsolator",)

Fault = tuple[Message, RowFault | LinkDown]


class RejectionIsolator:
    """The broker refuses a request as a whole, so its verdict tells nothing about a row: try one by one.

    That happens only when a limit was lowered since it was read. Limits read anew convict most
    culprits before anything is sent; who fails alone is guilty, unless the lane's marker says
    that it was published after all.
    """

    def __init__(self) -> None:
        #: Rows of a lane still to be tried alone.
        self._alone: dict[int, int] = {}
        self._rejected_alone: dict[int, tuple[UUID, Fault]] = {}
        self._confirmed: list[Fault] = []

    def note_rejected(self, batch: LaneBatch, error: KafkaError) -> None:
        """*batch* was refused."""
        if len(batch.messages) > 1:
            self._alone[batch.lane] = len(batch.messages)
        else:
            self._rejected_alone[batch.lane] = (batch.batch_id, (batch.messages[0], RecordRefused.by(error)))

    def confirm(self, lane: int, last_id: UUID | None) -> None:
        """*lane* was taken over anew; *last_id* was published last."""
        batch_id, fault = self._rejected_alone.pop(lane, (None, None))
        if fault is not None and batch_id != last_id:
            self._confirmed.append(fault)
            self._alone.pop(lane, None)

    def note_published(self, batch: LaneBatch) -> None:
        """*batch* was published."""
        left = self._alone.pop(batch.lane, 0) - len(batch.messages)
        if left > 0:
            self._alone[batch.lane] = left

    def take_confirmed(self) -> list[Fault]:
        """Those found guilty since this was last asked."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def is_isolating(self, lane: int) -> bool:
        """Whether rows of *lane* take off one by one."""
        return lane in self._alone

    def one_per_lane(self, messages: Sequence[Message]) -> Sequence[Message]:
        """*messages* with at most one of each lane under suspicion."""
        if not self._alone:
            return messages
        seen: set[int] = set()
        taken: list[Message] = []
        for message in messages:
            if message.lane in seen:
                continue
            if message.lane in self._alone:
                seen.add(message.lane)
            taken.append(message)
        return taken

    @staticmethod
    def without_keys_of(messages: Sequence[Message], faulty: Sequence[Fault]) -> Sequence[Message]:
        """*messages* without those that must wait for one in *faulty*."""
        if not faulty:
            return messages
        waiting = {message.key for message, _ in faulty if message.key is not None}
        gone = {message.seq for message, _ in faulty}
        return [m for m in messages if m.key not in waiting and m.seq not in gone]
