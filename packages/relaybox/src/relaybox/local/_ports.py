"""Find free ports of 127.0.0.1, and the process that uses a port."""

import random
import socket
from contextlib import suppress
from pathlib import Path

from relaybox.local._errors import LocalError, PortTaken

LOOPBACK = "127.0.0.1"
_PORTS = range(10_000, 32_001)
_TRIES_MAX = 200
_LISTEN = "0A"


def free_port() -> int:
    """Return a free port of 127.0.0.1, from 10,000 to 32,000, which is no ephemeral port of the kernel.

    If the kernel's ephemeral ports leave fewer than 200 of these ports, all of them are considered.

    ``bind`` to port 0 would return an ephemeral port. While a server restarts, the kernel may give such a
    port to an outgoing connection. This may even be the connection of a client that tries to reach the
    server: the client would then connect to itself.

    Raises:
        LocalError: 200 random ports were all in use.
    """
    ephemeral = _ephemeral_ports()
    others = [port for port in _PORTS if port not in ephemeral]
    ports = others if len(others) >= _TRIES_MAX else _PORTS
    for _ in range(_TRIES_MAX):
        port = random.choice(ports)  # noqa: S311 – not a secret
        if not _is_in_use(port):
            return port
    raise LocalError(
        f"No free port found between {ports[0]} and {ports[-1]}. Stop some servers and try again."
    )


def require_free_port(port: int, *, setting: str) -> None:
    """Check that no process listens on *port*.

    Args:
        port: Port of 127.0.0.1.
        setting: Environment variable of the port, for the message.

    Raises:
        PortTaken: A process listens; the message has its name and pid if this user may see them.
    """
    if _is_in_use(port):
        raise PortTaken(port=port, owner=port_owner(port), setting=setting)


def port_owner(port: int) -> str | None:
    """Return name and pid of the process that listens on *port*, such as ``postgres (pid 42)``.

    Returns:
        None if no process listens, or if this user may not see the process; always None on systems other than
        Linux.
    """
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(table, port)}
    if not inodes:
        return None
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            if any(_target(handle) in sockets for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _target(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except FileNotFoundError:
        # The handle was closed meanwhile, such as the handle by which this process lists its handles.
        return ""


def _is_in_use(port: int) -> bool:
    with socket.socket() as probe:
        # Without this option a connection in TIME_WAIT would look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def _ephemeral_ports() -> range:
    """Return the ports that the kernel gives to outgoing connections; empty on systems other than Linux."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return range(0)
    return range(int(low), int(high) + 1)


def _listening_inodes(table: str, port: int) -> list[str]:
    try:
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]
