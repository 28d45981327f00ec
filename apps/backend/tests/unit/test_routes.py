"""The cursors of the session list."""

import base64
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from backend.genesis.routes import _position
from relaybox.http import ValidationFailed


def cursor_of(*position: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def test_cursor_decodes_to_the_last_position() -> None:
    last = uuid4()
    found = _position(cursor_of("2026-11-21T10:00:00+01:00", str(last)))
    assert found == (datetime(2026, 11, 21, 9, tzinfo=UTC), last)


@pytest.mark.guarantee("G82")
@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "yesterday", 5, None]
)
def test_invalid_cursor_is_refused(at: object) -> None:
    with pytest.raises(ValidationFailed):
        _position(cursor_of(at, str(uuid4())))
