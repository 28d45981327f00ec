"""Start the program ``backend``.

The command line, whose imports take most of a second, is imported in :func:`main`, so that Ctrl-C during
these imports is handled too.
"""

import sys

__all__ = ("main",)

#: The exit code of a program that SIGINT ended, as shells report it.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; after Ctrl-C exit with code 130 and without a traceback."""
    try:
        from backend.cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
