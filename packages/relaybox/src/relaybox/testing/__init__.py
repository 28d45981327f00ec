"""Test an application on real servers: the objects behind the fixtures of Relaybox's pytest plugin.

Install ``relaybox[testing]``; pytest then finds the fixtures without configuration, and ``pytest --fixtures``
lists them. :mod:`relaybox.pytest_plugin` defines them.
"""

from relaybox.consumers import MessageOutcome, ProcessedMessage
from relaybox.testing._consumer import HandlerRunner, SteppedConsumer, SteppedConsumers
from relaybox.testing._databases import (
    Databases,
    create_database,
    drop_database,
    settings_for,
    superuser_of,
)
from relaybox.testing._events import make_event
from relaybox.testing._published import PublishedAssertion
from relaybox.testing._relay import SteppedRelay
from relaybox.testing._schedules import Schedules
from relaybox.testing._servers import run_in_own_loop, server_directory
from relaybox.testing._tasks import Tasks
from relaybox.testing._topics import TopicClient, Topics

__all__ = (
    "Databases",
    "HandlerRunner",
    "MessageOutcome",
    "ProcessedMessage",
    "PublishedAssertion",
    "Schedules",
    "SteppedConsumer",
    "SteppedConsumers",
    "SteppedRelay",
    "Tasks",
    "TopicClient",
    "Topics",
    "create_database",
    "drop_database",
    "make_event",
    "run_in_own_loop",
    "server_directory",
    "settings_for",
    "superuser_of",
)
