"""Queries and actions for operators: outbox rows, blocked keys, relays, lanes (G32), topics (G37)."""

from relaybox.operations._actions import (
    Action,
    Preview,
    RecordedAction,
    list_actions,
    preview,
    purge,
    retry,
    skip,
)
from relaybox.operations._errors import LanesRefused, MarkerRefused, OperationError, SelectionEmpty
from relaybox.operations._relays import (
    BACKLOG_ROWS_MAX,
    LANES_MAX,
    LaneStatus,
    RelayStatus,
    Status,
    accept_marker,
    check_lane_count,
    published_per_s,
    relay_status,
    request_lanes,
)
from relaybox.operations._rows import (
    BlockedKey,
    BlockedKeys,
    BlockedLane,
    Row,
    RowDetails,
    blocked_keys,
    list_rows,
    show_row,
)
from relaybox.operations._selection import Fault, Selection, State
from relaybox.operations._topic_faults import TopicFault, TopicUse
from relaybox.operations._topics import CheckedTopic, TopicsCheck, check_topics

__all__ = (
    "BACKLOG_ROWS_MAX",
    "LANES_MAX",
    "Action",
    "BlockedKey",
    "BlockedKeys",
    "BlockedLane",
    "CheckedTopic",
    "Fault",
    "LaneStatus",
    "LanesRefused",
    "MarkerRefused",
    "OperationError",
    "Preview",
    "RecordedAction",
    "RelayStatus",
    "Row",
    "RowDetails",
    "Selection",
    "SelectionEmpty",
    "State",
    "Status",
    "TopicFault",
    "TopicUse",
    "TopicsCheck",
    "accept_marker",
    "blocked_keys",
    "check_lane_count",
    "check_topics",
    "list_actions",
    "list_rows",
    "preview",
    "published_per_s",
    "purge",
    "relay_status",
    "request_lanes",
    "retry",
    "show_row",
    "skip",
)
