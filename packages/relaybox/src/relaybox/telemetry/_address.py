"""The address that a process serves at, and what to do when it cannot be had."""

import errno
import os
import socket
from typing import ClassVar

from relaybox.errors import RelayboxError

__all__ = ("AddressUnusable", "open_listener")


class AddressUnusable(RelayboxError):
    """Raised when a server's address cannot be opened; says by the reason what to do about it."""

    #: What would be served there.
    what: ClassVar[str]
    #: Its settings are this with ``_HOST`` and ``_PORT``.
    settings: ClassVar[str]

    def __init__(self, host: str, port: int, error: OSError) -> None:
        # The system's own words, not Python's longer ones; the resolver's numbers are below zero.
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        super().__init__(f"cannot serve {self.what} at {host}:{port}: {reason}; {self._remedy(error)}")

    def _remedy(self, error: OSError) -> str:
        host, port = f"{self.settings}_HOST", f"{self.settings}_PORT"
        if error.errno == errno.EADDRINUSE:
            return f"stop what uses it, or set {port} to another port"
        if error.errno == errno.EACCES:
            return f"set {port} to a port from 1024 up"
        return f"set {host} to an address of this machine"


def open_listener(host: str, port: int, *, backlog: int, error_class: type[AddressUnusable]) -> socket.socket:
    """Listen at *host*:*port*, IPv4 or IPv6.

    Opened by us because uvicorn ends the whole process when it cannot open a port, without a word to
    do about it.

    Raises:
        AddressUnusable: as *error_class*; the address is taken, unknown or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise error_class(host, port, error) from error
