"""Run one service in the foreground: ``SERVICE_TYPE=… python -m backend``."""

import sys

from relaybox.errors import RelayboxError
from relaybox.settings import load_settings

from backend.services import run_service
from backend.settings import RoleSettings


def main() -> int:
    """Run the service that the environment variable SERVICE_TYPE names.

    A :class:`RelayboxError` is printed on standard error; an error about settings has one line per setting.

    Returns:
        The exit code: 0 if the service ended after a signal, 1 after a RelayboxError. The function does not
        return if the API runs in one process: after its shutdown, uvicorn sends the signal to the process
        again, and a failed start ends the process with code 3.
    """
    try:
        run_service(load_settings(RoleSettings).service_type)
    except RelayboxError as error:
        sys.stderr.write(f"{error.error_code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
