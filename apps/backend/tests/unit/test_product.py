"""What stops ``backend run`` before anything has been started."""

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
async def test_a_wrong_setting_of_any_part_is_told_before_a_server_is_started(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JWT_SECRET", "a secret of thirty-two bytes, or more")
    monkeypatch.setenv(name, value)
    nobody = cast("Any", None)
    product = _Product(settings=ProductSettings(data_dir=tmp_path), running=nobody, supervisor=nobody)
    with pytest.raises(SettingsError, match=rf"^{name}: [^\n]+$"):
        await product.compose(never)


def test_links_to_servers_are_shared_as_the_environment_has_them() -> None:
    """Through a pooler that is not named, a process that follows `backend env` would be refused."""
    links = {
        "POSTGRES_POOLER": "transaction",
        "POSTGRES_DIRECT_HOST": "db.example",
        "POSTGRES_DIRECT_PORT": "5433",
        "POSTGRES_TARGET_SESSION_ATTRS": "primary",
        "POSTGRES_SSL_MODE": "verify-full",
        "KAFKA_SECURITY_PROTOCOL": "SSL",
    }
    assert _connection_settings({**links, "POSTGRES_POOL_SIZE": "5", "KAFKA_SSL_CA_FILE": ""}) == links
