"""Free ports beside several ranges of ephemeral ports, in a network namespace."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest

_UNSHARE = ("unshare", "--user", "--map-root-user", "--net")
#: For each argument: sets the kernel's range of ephemeral ports, and looks for 200 free ports.
_PROGRAM = """
import json, sys
from pathlib import Path
from relaybox.local import free_port
found = {}
for ephemeral in sys.argv[1:]:
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(ephemeral)
    ports = [free_port() for _ in range(200)]
    found[ephemeral] = min(ports), max(ports)
print(json.dumps(found))
"""


def ports_found(*ephemeral: str) -> Mapping[str, tuple[int, int]]:
    """Return the least and the greatest free port, by range of ephemeral ports."""
    if not shutil.which("unshare") or subprocess.run([*_UNSHARE, "true"], check=False).returncode:
        pytest.skip("this system has no network namespaces for this user")
    command = [*_UNSHARE, sys.executable, "-c", _PROGRAM, *ephemeral]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_free_port_is_not_an_ephemeral_port() -> None:
    for ephemeral, (least, greatest) in ports_found("32768 60999", "15000 65535", "9000 20000").items():
        low, high = map(int, ephemeral.split())
        assert 10_000 <= least <= greatest <= 32_000
        assert greatest < low or least > high, ephemeral


def test_free_port_is_found_if_nearly_all_ports_are_ephemeral() -> None:
    for ephemeral, (least, greatest) in ports_found("1024 65535", "10000 65535", "10010 65535").items():
        assert 10_000 <= least < 20_000 < greatest <= 32_000, ephemeral
