"""``SERVICE_TYPE=… python -m backend``: one service in the foreground."""

import sys

from relaybox.errors import RelayboxError
from relaybox.settings import load_settings

from backend.services import run_service
from backend.settings import RoleSettings


def main() -> int:
    """Run the service; return 1, with one line on standard error per invalid setting, if it cannot start."""
    try:
        run_service(load_settings(RoleSettings).service_type)
    except RelayboxError as error:
        sys.stderr.write(f"{error.error_code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
