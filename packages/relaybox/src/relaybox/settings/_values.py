"""Validate values of several settings classes: ports, files, addresses."""

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
    """Return the error for an invalid value; *message* must not contain the value, which may be a secret."""
    return PydanticCustomError("setting", "{message}", {"message": message})


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise invalid_setting(
            f"the file cannot be read: {error.strerror}; check its path and its permissions"
        ) from error
    return path


def refuse_unused(given: object, remedy: str) -> None:
    """Reject the value of a setting that has no effect with the other settings.

    Otherwise an operator could set a password or a certificate and not notice that connections use no TLS.

    Args:
        given: The value; None if the setting is not set.
        remedy: The advice for the message, such as ``set KAFKA_SSL_CERT_FILE``.

    Raises:
        PydanticCustomError: *given* is not None.
    """
    if given is not None:
        raise invalid_setting(f"has no effect with the other settings; remove it, or {remedy}")


Port = Annotated[int, Field(ge=1, le=_PORT_MAX)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]


def require_key_file(value: Path | None, info: ValidationInfo, certificate: str) -> Path | None:
    """Return the key file *value* after a check that a key is set if, and only if, a certificate is set.

    Args:
        value: The key file; None if it is not set.
        info: The other fields, of which ``ssl_cert_file`` is the certificate.
        certificate: Environment variable of ``ssl_cert_file``, for the message.

    Raises:
        PydanticCustomError: Only one of key and certificate is set.
    """
    # If the certificate's setting is invalid, `info.data` lacks it, and its own error is reported.
    given = info.data.get("ssl_cert_file", ...)
    if given is None:
        refuse_unused(value, f"set {certificate}")
    elif given is not ... and value is None:
        raise invalid_setting(f"is missing: required if {certificate} is set")
    return value


def address_with_port(host: str, port: int) -> str:
    """Return *host* as ``host:port``, with *port* if *host* contains no port."""
    name, _, own_port = host.rpartition(":")
    has_port = own_port.isdecimal() and (":" not in name or name.endswith("]")) and bool(name)
    return host if has_port else f"{host}:{port}"


def parse_addresses(hosts: str, port: int) -> list[tuple[str, int]]:
    """Return host and port of each of the comma-separated *hosts*, with *port* for a host without a port."""
    pairs = [
        address_with_port(host.strip(), port).rpartition(":") for host in hosts.split(",") if host.strip()
    ]
    return [(host.removeprefix("[").removesuffix("]"), int(own_port)) for host, _, own_port in pairs]


def validate_addresses(hosts: str) -> str:
    """Return *hosts* if it is a comma-separated list of host names, each with an optional valid port.

    Raises:
        PydanticCustomError: *hosts* is not such a list.
    """
    pairs = parse_addresses(hosts, _PORT_MAX)
    if not pairs or not all(host and 1 <= port <= _PORT_MAX for host, port in pairs):
        raise invalid_setting(
            "must be a comma-separated list of host names, each with an optional port (a:5433)"
        )
    return hosts
