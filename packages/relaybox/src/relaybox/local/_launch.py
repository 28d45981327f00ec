"""Change the account, ask the kernel for a signal at the parent's death, and exec a program.

Run as ``python -I -S _launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENT…``, which takes about 15 ms. This
is a separate program and not a ``preexec_fn``, which would run Python between fork and exec of a process with
threads (librdkafka has many): that may deadlock, and causes a warning since Python 3.12.
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
        # After setuid, which clears the parent-death signal.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # the parent died before prctl was called
        sys.exit(1)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 – intended


if __name__ == "__main__":
    main()
