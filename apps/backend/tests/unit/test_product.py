"""Errors that stop ``backend run`` before a server is started."""

from pathlib import Path
from typing import Any, cast

import pytest
from backend.product import _connection_settings, _Product
from backend.running import ProductSettings
from relaybox.errors import SettingsError


async def never(part: object) -> None:
    raise AssertionError(f"{part} was started")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_WORKERS", "many"),
        ("JWT_SECRET", "short"),
        ("MUSE", "poet"),
        ("RELAY_LEASE_S", "soon"),
        ("TASK_LEASE_S", "soon"),
        ("OUTBOX_MESSAGE_BYTES_MAX", "enough"),
    ],
)
async def test_invalid_setting_stops_the_product_before_any_server(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JWT_SECRET", "a secret of thirty-two bytes, or more")
    monkeypatch.setenv(name, value)
    unused = cast("Any", None)
    product = _Product(settings=ProductSettings(data_dir=tmp_path), running=unused, supervisor=unused)
    with pytest.raises(SettingsError, match=rf"^{name}: [^\n]+$"):
        await product.compose(never)


def test_connection_settings_are_shared_unchanged() -> None:
    """Without the setting of the pooler, a pooler would refuse a process that uses `backend env`."""
    links = {
        "POSTGRES_POOLER": "transaction",
        "POSTGRES_DIRECT_HOST": "db.example",
        "POSTGRES_DIRECT_PORT": "5433",
        "POSTGRES_TARGET_SESSION_ATTRS": "primary",
        "POSTGRES_SSL_MODE": "verify-full",
        "KAFKA_SECURITY_PROTOCOL": "SSL",
    }
    assert _connection_settings({**links, "POSTGRES_POOL_SIZE": "5", "KAFKA_SSL_CA_FILE": ""}) == links
