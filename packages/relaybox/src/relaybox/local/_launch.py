"""Change the account, ask the kernel for a signal at the parent's death, and exec a program.

Run as ``python -I -S _launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENT…``, which takes about 15 ms. This
is a separate program, because the alternative, a ``preexec_fn``, runs Python code between fork and exec. In a
process with threads (librdkafka has many) such code may deadlock; since version 3.12 Python warns about it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Switch to UID and GID, request SIGNAL for the death of the parent process, and exec the program.

    The account changes only if the current user is root and UID is not 0. Only Linux can send such a signal.
    If the parent process is dead already, the program is not executed, and the exit code is 1.
    """
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
