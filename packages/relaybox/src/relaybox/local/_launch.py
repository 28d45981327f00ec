"""Become another program: in its own session, as another account, not surviving its starter.

Run as ``python -I -S _launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENT…``. A small program of its own
because the same steps in ``preexec_fn`` run Python between fork and exec of a process with threads
(librdkafka has many), which may deadlock and is warned of since Python 3.12. It costs about 15 ms.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop privileges, ask the kernel for *SIGNAL* on the parent's death, exec."""
    parent, signal_number, uid, gid = (int(argument) for argument in sys.argv[1:5])
    if os.getuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of account, which clears it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 – meant


if __name__ == "__main__":
    main()
