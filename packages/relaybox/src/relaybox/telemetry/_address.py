"""Open the listening socket of a server; if that fails, name the setting to change."""

import errno
import os
import socket
from typing import ClassVar

from relaybox.errors import RelayboxError

__all__ = ("AddressUnusable", "open_listener")


class AddressUnusable(RelayboxError):
    """Raised when a server's address cannot be opened; the message names the setting to change."""

    #: What is served at the address, for the message, such as ``health``.
    what: ClassVar[str]
    #: Prefix of the settings ``…_HOST`` and ``…_PORT``, for the message.
    settings: ClassVar[str]

    def __init__(self, host: str, port: int, error: OSError) -> None:
        # The operating system's text is shorter than Python's. Errors of name resolution have negative
        # numbers, for which the operating system has no text; then Python's text is used.
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno or 0) if known else error.strerror or str(error)
        super().__init__(f"cannot serve {self.what} at {host}:{port}: {reason}; {self._remedy(error)}")

    def _remedy(self, error: OSError) -> str:
        host, port = f"{self.settings}_HOST", f"{self.settings}_PORT"
        if error.errno == errno.EADDRINUSE:
            return f"stop the process that uses this port, or set {port} to another port"
        if error.errno == errno.EACCES:
            return f"this process has no right to open this port; set {port} to 1024 or higher"
        return f"set {host} to an address of this machine, or to 0.0.0.0 for all addresses"


def open_listener(host: str, port: int, *, backlog: int, error_class: type[AddressUnusable]) -> socket.socket:
    """Listen on *host*:*port*, IPv4 or IPv6, and return the listening socket.

    A server passes the socket to uvicorn. If uvicorn opened the port, a failure would end the process without
    a message that says what to do.

    Args:
        host: Name or address of this machine.
        port: 0 for a free port that the operating system chooses.
        backlog: Maximum number of connections that wait to be accepted, as for ``listen(2)``.
        error_class: The subclass of AddressUnusable to raise if the address cannot be opened.

    Raises:
        AddressUnusable: The address is in use, unknown, or not an address of this machine; or this process
            has no right to open the port.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise error_class(host, port, error) from error
