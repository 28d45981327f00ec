"""The caller of a command, read from the headers of its request."""

from uuid import uuid4

import pytest
from relaybox.http import BadHeader, Principal, caller_of
from starlette.requests import Request

ANN = Principal(issuer="test", subject="ann")


def request_with(*headers: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "method": "POST", "path": "/", "headers": list(headers)})


def test_correlation_id_adds_the_command_to_its_chain() -> None:
    chain = uuid4()
    request = request_with((b"x-correlation-id", str(chain).encode()))
    assert caller_of(request, ANN, "test").correlation_id == chain


def test_command_without_correlation_id_begins_a_chain() -> None:
    assert caller_of(request_with(), ANN, "test").correlation_id is None


@pytest.mark.parametrize("given", [b"", b"the chain", b"0" * 33, b"\xff"])
def test_correlation_id_that_is_no_uuid_is_refused(given: bytes) -> None:
    with pytest.raises(BadHeader, match="'X-Correlation-Id' must be a UUID") as refused:
        caller_of(request_with((b"x-correlation-id", given)), ANN, "test")
    assert (refused.value.status, refused.value.error_code) == (400, "HEADER_INVALID")
