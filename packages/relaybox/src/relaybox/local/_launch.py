"""Launcher: change the account, bind the process to its parent's life, and exec a program.

Run as ``python -I -S _launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENT…``. It is a program because
``preexec_fn`` would run Python between fork and exec of a process with threads (librdkafka has many), which
may deadlock and causes a warning since Python 3.12. It takes about 15 ms.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop privileges, request SIGNAL from the kernel for the death of the parent, and exec the program."""
    parent, signal_number, uid, gid = (int(argument) for argument in sys.argv[1:5])
    if os.getuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of account, which would clear the request.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # the parent died before the request
        sys.exit(1)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 – intended


if __name__ == "__main__":
    main()
