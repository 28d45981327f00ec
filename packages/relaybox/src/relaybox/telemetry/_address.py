"""Listen on the address of a server, with an error that names the setting to change."""

import errno
import os
import socket
from typing import ClassVar

from relaybox.errors import RelayboxError

__all__ = ("AddressUnusable", "open_listener")


class AddressUnusable(RelayboxError):
    """Raised when a server's address cannot be opened; the message names the setting to change."""

    #: What the server serves, for the message.
    what: ClassVar[str]
    #: The prefix of the settings ``…_HOST`` and ``…_PORT``.
    settings: ClassVar[str]

    def __init__(self, host: str, port: int, error: OSError) -> None:
        # The system's text, which is shorter than Python's; the resolver's numbers are negative.
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        super().__init__(f"cannot serve {self.what} at {host}:{port}: {reason}; {self._remedy(error)}")

    def _remedy(self, error: OSError) -> str:
        host, port = f"{self.settings}_HOST", f"{self.settings}_PORT"
        if error.errno == errno.EADDRINUSE:
            return f"stop the process that uses it, or set {port} to another port"
        if error.errno == errno.EACCES:
            return f"set {port} to a port from 1024 up"
        return f"set {host} to an address of this machine"


def open_listener(host: str, port: int, *, backlog: int, error_class: type[AddressUnusable]) -> socket.socket:
    """Listen on *host*:*port*, IPv4 or IPv6.

    Uvicorn does not open the port itself: if that failed, it would end the process without saying what to do.

    Raises:
        AddressUnusable: The address is in use, unknown or not one of this machine; raised as *error_class*.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise error_class(host, port, error) from error
