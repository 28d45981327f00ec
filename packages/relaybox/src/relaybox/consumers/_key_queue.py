"""Queues of unfinished work: one for each key, in order, and all keys of one partition together."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from relaybox.consumers._message import Message, Partition
from relaybox.consumers._offsets import OffsetWindow
from relaybox.consumers._statistics import PartitionLag

__all__ = (
    "Item",
    "KeyQueue",
    "KeyState",
    "Parking",
    "PartitionQueue",
    "ReadyKeys",
    "Replay",
    "RequestedReplays",
)

#: A partition with this many unfinished messages is paused.
_MESSAGES_MAX: Final = 10_000
#: A partition with this many unfinished messages is paused if they have at least ``_ENOUGH_KEYS`` keys. With
#: fewer keys, most messages probably wait for one slow or retried key: reading on finds other keys.
_ENOUGH_MESSAGES: Final = 500
_ENOUGH_KEYS: Final = 64
#: A partition whose unfinished messages have this many bytes is paused.
_BYTES_MAX: Final = 16 * 1024 * 1024
#: While a partition has this many unfinished replays, no further ones are searched in the database.
_REPLAYS_MAX: Final = 250
#: A partition with this many finished messages after its first unfinished message is paused, because all of
#: them are read again after a crash.
_FINISHED_ABOVE_MAX: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A requested replay: of the dead letters of one key, in order, or of one letter that blocks no key."""

    partition: Partition
    #: The key whose letters are replayed; None if *letter_id* names the letter.
    key: bytes | None
    #: Id of a letter that blocks no key; None if the letters of *key* are replayed.
    letter_id: int | None


@dataclass(frozen=True, kw_only=True)
class RequestedReplays:
    """The requested replays of one partition that can begin, as one search of the database found them."""

    partition: Partition
    replays: Sequence[Replay]
    #: SHA-256 hash of a key, after which the next search begins; empty to begin with the first key.
    next_start: bytes


Work = Message | Replay


@dataclass(frozen=True, kw_only=True)
class Parking:
    """Why a message or a replay gets no further attempt, so that the message or letter has to be parked."""

    failure: BaseException
    #: Failed attempts of the handler since the message was read, or since its replay began. If processes
    #: ended in the handler or in ``on_parked``: their number.
    attempts: int
    #: The letter whose replay failed; None for a message that becomes a letter.
    letter_id: int | None = None


class KeyState(Enum):
    """State of a key's queue.

    ::

        IDLE ── work arrives ──► READY ── taken ──► RUNNING ── finished ──► READY, or IDLE if it is empty
                                   ▲                   │
                                   └───── PAUSED ◄─────┘ failed; again after a pause
    """

    IDLE = auto()
    READY = auto()
    RUNNING = auto()
    PAUSED = auto()


@dataclass(kw_only=True, slots=True)
class Item:
    """A message or a replay, and the failures of its attempts."""

    work: Work
    #: Attempts that count as failures of its handler.
    failures: int = 0
    #: Attempts that count as database errors; once *parking* is set, the failed attempts to park.
    database_failures: int = 0
    #: Database errors of this item although messages of other keys had committed since the previous one.
    isolated_failures: int = 0
    #: How many messages of all keys had committed at this item's last database error; None before the first.
    commits_seen: int | None = None
    #: True after a transaction with events of other keys failed: the next attempt shares no transaction.
    alone: bool = False
    #: Id of the last letter that this replay has replayed; 0 before the first.
    replayed_to: int = 0
    #: Set when no further attempt follows: the message or letter has to be parked.
    parking: Parking | None = None


class KeyQueue:
    """The unfinished work of one key, oldest first; its first item is the one that runs."""

    def __init__(self, partition: "PartitionQueue", key: bytes | int) -> None:
        """*key* is the messages' key, or a number for work without a key."""
        self.partition = partition
        self.key = key
        self.items: deque[Item] = deque()
        self.state = KeyState.IDLE

    @property
    def first(self) -> Item:
        """The item that runs, or runs next."""
        return self.items[0]

    def let_messages_pass(self, count: int) -> None:
        """Move the replay at the front behind the next *count* items, so that waiting messages come first.

        These messages are then parked or handled. Otherwise the messages of a key with many letters would
        wait for the last replay, and fill the queue of their partition.
        """
        self.items.insert(count, self.items.popleft())


class PartitionQueue:
    """The unfinished messages and replays of one assigned partition, by key.

    Only the event loop's thread changes the queue; the thread that calls Kafka reads ``offsets.position``.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.offsets = OffsetWindow()
        #: Set when the partition was revoked: no further work of it may begin.
        self.closed = False
        #: Number and bytes of unfinished messages, and number of unfinished replays.
        self.messages = 0
        self.bytes = 0
        self.replays = 0
        #: Whether requested replays were searched since the partition was assigned.
        self.replays_searched = False
        #: The offset after the last message of the partition, as of the last fetch; None if it is not known.
        self.end: int | None = None
        #: Where the next search for requested replays begins: ``next_start`` of the last search. A search
        #: reads a limited number of keys. If each search began with the first key, keys whose first letter is
        #: not requested could use up that number, and the keys after them would never be found.
        self.replays_start = b""
        self._keys: dict[bytes | int, KeyQueue] = {}

    @property
    def is_full(self) -> bool:
        """Whether no further message may be read: too many are unfinished, or finished but not committed."""
        return (
            self.messages >= _MESSAGES_MAX
            or (self.messages >= _ENOUGH_MESSAGES and len(self._keys) >= _ENOUGH_KEYS)
            or self.bytes >= _BYTES_MAX
            or self.offsets.finished_above >= _FINISHED_ABOVE_MAX
        )

    @property
    def has_room(self) -> bool:
        """Whether a paused partition may be read again: every limit is at most half used."""
        return (
            self.messages <= _MESSAGES_MAX // 2
            and (self.messages <= _ENOUGH_MESSAGES // 2 or len(self._keys) <= _ENOUGH_KEYS // 2)
            and self.bytes <= _BYTES_MAX // 2
            and self.offsets.finished_above <= _FINISHED_ABOVE_MAX // 2
        )

    @property
    def lag(self) -> int | None:
        """Offsets from the first unfinished message to the end of the partition; None if not known."""
        first = self.offsets.first_unfinished
        return None if first is None or self.end is None else max(0, self.end - first)

    @property
    def is_finished(self) -> bool:
        """Whether every message and every requested replay, as far as known, is finished."""
        return self.lag == 0 and self.replays == 0 and self.replays_searched

    def measure_lag(self, now_s: float) -> PartitionLag:
        """Return the lag at the time *now_s* (seconds since 1970); this iterates over all keys."""
        topic, partition = self.partition
        created_at_s = 0.0 if (oldest := self.oldest_unfinished) is None else oldest.created_at_s
        seconds = max(0.0, now_s - created_at_s) if created_at_s else 0.0
        return PartitionLag(topic=topic, partition=partition, messages=self.lag, seconds=seconds)

    @property
    def has_room_for_replays(self) -> bool:
        """Whether further replays may be added."""
        return self.replays < _REPLAYS_MAX

    @property
    def oldest_unfinished(self) -> Message | None:
        """The unfinished message with the lowest offset, None if there is none; iterates over all keys."""
        messages = (
            next((item.work for item in queue.items if isinstance(item.work, Message)), None)
            for queue in self._keys.values()
        )
        return min(filter(None, messages), key=lambda message: message.offset, default=None)

    def add(self, message: Message) -> KeyQueue:
        """Append a message that was read to the queue of its key, and return that queue.

        A message without a key has a queue of its own: Kafka promises no order for such messages.
        """
        self.offsets.add(message.offset)
        self.messages += 1
        self.bytes += message.bytes
        queue = self._queue(message.offset if message.key is None else message.key)
        queue.items.append(Item(work=message))
        return queue

    def add_replays(self, found: RequestedReplays) -> list[KeyQueue]:
        """Add the replays that a search has found; return the queues of those that were not added before."""
        self.replays_start = found.next_start
        self.replays_searched = True
        return [queue for replay in found.replays if (queue := self.add_replay(replay)) is not None]

    def add_replay(self, replay: Replay) -> KeyQueue | None:
        """Put *replay* before the waiting messages of its key, and return the queue of the key.

        Returns None if the queue has *replay* already. Work that has begun stays before *replay*.
        """
        # The negative letter id: no message has it as its offset, so the letter has a queue of its own.
        queue = self._queue(-(replay.letter_id or 0) if replay.key is None else replay.key)
        if any(item.work == replay for item in queue.items):
            return None
        started = queue.state in (KeyState.RUNNING, KeyState.PAUSED)
        queue.items.insert(1 if started else 0, Item(work=replay))
        self.replays += 1
        return queue

    def finish_first(self, queue: KeyQueue) -> None:
        """Remove the first item of *queue*, because it is finished."""
        done = queue.items.popleft().work
        queue.state = KeyState.READY if queue.items else KeyState.IDLE
        if isinstance(done, Message):
            self.messages -= 1
            self.bytes -= done.bytes
            self.offsets.finish(done.offset)
        else:
            self.replays -= 1
        if not queue.items:
            del self._keys[queue.key]

    def _queue(self, key: bytes | int) -> KeyQueue:
        queue = self._keys.get(key)
        if queue is None:
            queue = self._keys[key] = KeyQueue(self, key)
        return queue


class ReadyKeys:
    """The keys of all partitions whose next work may begin.

    Keys that replay a letter take turns with keys that have a message, so that a message does not wait for
    the thousands of replays that an operator may request. Replays use at most half of the transactions (but
    at least one), so that messages are handled although the handlers of replayed letters hang again.
    """

    def __init__(self, concurrency: int) -> None:
        """*concurrency* is the number of transactions that may run at once."""
        self._replays_max = max(1, concurrency // 2)
        self._messages: deque[KeyQueue] = deque()
        self._replays: deque[KeyQueue] = deque()
        self._replay_is_next = False

    def __len__(self) -> int:
        return len(self._messages) + len(self._replays)

    def add(self, queue: KeyQueue, *, first: bool = False) -> None:
        """Add *queue* behind the other ready queues, or before them if *first*."""
        keys = self._replays if isinstance(queue.first.work, Replay) else self._messages
        if first:
            keys.appendleft(queue)
        else:
            keys.append(queue)

    def next_keys(self, replaying: int) -> deque[KeyQueue]:
        """Return the queues whose work comes next: either all queues with messages or all with replays.

        The caller removes the queues that it runs. The result is empty if no work may begin.

        Args:
            replaying: Number of running transactions that replay letters.
        """
        while self._messages and isinstance(self._messages[0].first.work, Replay):
            self._replays.append(self._messages.popleft())  # add_replay put a replay before its messages
        if not self._replays or replaying >= self._replays_max:
            return self._messages
        if not self._messages:
            return self._replays
        self._replay_is_next = not self._replay_is_next
        return self._replays if self._replay_is_next else self._messages
