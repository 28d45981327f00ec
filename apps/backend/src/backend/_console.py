"""The entry point of the program ``backend``, without its imports, which take most of a second."""

import sys

__all__ = ("main",)

#: The exit code of a program that SIGINT ended, as shells report it.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, even during its imports."""
    try:
        from backend.cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
