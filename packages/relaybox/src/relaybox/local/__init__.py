"""A real PostgreSQL and a real Kafka for development and tests, without a container engine."""

from relaybox.local._errors import (
    DataDirectoryInUse,
    DataDirectoryNotUsable,
    DataDirectoryOfAnotherVersion,
    DiskFull,
    LocalError,
    PortTaken,
    ServerDidNotStart,
    ServerNotAvailable,
)
from relaybox.local._kafka import LocalKafka
from relaybox.local._ports import free_port, port_owner, require_free_port
from relaybox.local._postgres import LocalPostgres

__all__ = (
    "DataDirectoryInUse",
    "DataDirectoryNotUsable",
    "DataDirectoryOfAnotherVersion",
    "DiskFull",
    "LocalError",
    "LocalKafka",
    "LocalPostgres",
    "PortTaken",
    "ServerDidNotStart",
    "ServerNotAvailable",
    "free_port",
    "port_owner",
    "require_free_port",
)
