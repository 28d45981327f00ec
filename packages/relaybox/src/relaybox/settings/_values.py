"""Values that settings of several neighbours have: ports, files, addresses."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

__all__ = (
    "Port",
    "ReadableFile",
    "address_with_port",
    "invalid_setting",
    "parse_addresses",
    "refuse_unused",
    "require_key_file",
    "validate_addresses",
)

_PORT_MAX: Final = 65_535


def invalid_setting(message: str) -> PydanticCustomError:
    """The error for a value that is refused; *message* must not have the value, which may be a secret."""
    return PydanticCustomError("setting", "{message}", {"message": message})


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise invalid_setting(f"the file cannot be read: {error.strerror}") from error
    return path


def refuse_unused(given: object, remedy: str) -> None:
    """What would be ignored in silence is refused: a link that only looks protected is the worst kind."""
    if given is not None:
        raise invalid_setting(f"nothing uses it; {remedy}")


Port = Annotated[int, Field(ge=1, le=_PORT_MAX)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]


def require_key_file(value: Path | None, info: ValidationInfo, certificate: str) -> Path | None:
    """Ask for the key file *value* exactly where ``ssl_cert_file``, the setting *certificate*, is given."""
    # A certificate that was itself refused is not in the data: one line is enough.
    given = info.data.get("ssl_cert_file", ...)
    if given is None:
        refuse_unused(value, f"set {certificate}")
    elif given is not ... and value is None:
        raise invalid_setting(f"needed with {certificate}")
    return value


def address_with_port(host: str, port: int) -> str:
    """*host* as ``host:port``, with *port* where it has none of its own."""
    name, _, own_port = host.rpartition(":")
    has_port = own_port.isdecimal() and (":" not in name or name.endswith("]")) and bool(name)
    return host if has_port else f"{host}:{port}"


def parse_addresses(hosts: str, port: int) -> list[tuple[str, int]]:
    """Host and port of each of the comma-separated *hosts*; *port* where one has none of its own."""
    pairs = [address_with_port(one.strip(), port).rpartition(":") for one in hosts.split(",") if one.strip()]
    return [(host.removeprefix("[").removesuffix("]"), int(own_port)) for host, _, own_port in pairs]


def validate_addresses(hosts: str) -> str:
    """Refuse *hosts* in which nothing can be found to connect to."""
    pairs = parse_addresses(hosts, _PORT_MAX)
    if not pairs or not all(host and 1 <= port <= _PORT_MAX for host, port in pairs):
        raise invalid_setting(
            "must be host names, comma-separated, each with a port of its own if need be (a:5433)"
        )
    return hosts
