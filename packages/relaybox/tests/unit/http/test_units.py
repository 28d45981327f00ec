"""Settings and text of a unit of work; the request and its transaction are imitated."""

from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from relaybox.http import UnitOfWork, _unit, unit_of_work
from relaybox.settings import IdempotencySettings
from sqlalchemy.ext.asyncio import AsyncSession

#: The imitated request has no sender and no route.
REQUEST: Any = SimpleNamespace(scope={})


class Idempotent:
    """A request without a key."""

    def __init__(self) -> None:
        self.key = self

    async def read_body(self, _request: object) -> None:
        """Read nothing."""

    @contextmanager
    def deciding(self) -> Generator[None]:
        yield

    async def claim(self, *_: object) -> None:
        return None

    leave_cache = hold_for_unit = claim

    def add_targets(self, *_: object) -> None:
        """Erase nothing."""


async def begin() -> AsyncSession:
    return AsyncSession()


def database_of(_request: object) -> Any:
    return SimpleNamespace(begin=begin)


async def test_settings_are_read_once_at_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[type] = []

    def load(settings: type[IdempotencySettings]) -> IdempotencySettings:
        loaded.append(settings)
        return settings()

    monkeypatch.setattr(_unit, "load_settings", load)
    monkeypatch.setattr(_unit, "idempotent_request_of", lambda _request: Idempotent())
    dependency: Any = unit_of_work(database_of, lambda: "sender")
    assert loaded == []
    for _ in range(2):
        unit = await anext(dependency(REQUEST, "sender"))
        assert unit.principal == "sender"
    assert loaded == [IdempotencySettings]


def test_text_of_a_unit_has_no_internal_function() -> None:
    unit = UnitOfWork(db=AsyncSession(), principal="sender", key="key", _note_targets=print)
    assert "principal='sender', key='key')" in repr(unit)
