"""Where the program ``backend`` begins: before its imports, which take most of a second."""

import sys

__all__ = ("main",)

#: As a shell reports a program that SIGINT ended.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, even while it is still being loaded."""
    try:
        from backend.cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
