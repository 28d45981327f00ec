"""Run local PostgreSQL and Kafka servers for development and tests, and supervise processes."""

from relaybox.local._errors import (
    ChecksumMismatch,
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
from relaybox.local._kafka_cluster import LocalKafkaCluster
from relaybox.local._parts import Part, Server, ServerPart
from relaybox.local._ports import free_port, port_owner, require_free_port
from relaybox.local._postgres import LocalPostgres
from relaybox.local._restarts import PartState, PartStatus
from relaybox.local._supervisor import Start, Supervisor

__all__ = (
    "ChecksumMismatch",
    "DataDirectoryInUse",
    "DataDirectoryNotUsable",
    "DataDirectoryOfAnotherVersion",
    "DiskFull",
    "LocalError",
    "LocalKafka",
    "LocalKafkaCluster",
    "LocalPostgres",
    "Part",
    "PartState",
    "PartStatus",
    "PortTaken",
    "Server",
    "ServerDidNotStart",
    "ServerNotAvailable",
    "ServerPart",
    "Start",
    "Supervisor",
    "free_port",
    "port_owner",
    "require_free_port",
)
