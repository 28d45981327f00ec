"""Run one service in the foreground: ``SERVICE_TYPE=… python -m backend``."""

import sys

from relaybox.errors import RelayboxError
from relaybox.settings import load_settings

from backend.services import run_service
from backend.settings import RoleSettings


def main() -> int:
    """Run the service that SERVICE_TYPE names, and return the exit code: 0 after a signal, 1 after an error.

    An error is printed on standard error, with one line per invalid setting.
    """
    try:
        run_service(load_settings(RoleSettings).service_type)
    except RelayboxError as error:
        sys.stderr.write(f"{error.error_code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
