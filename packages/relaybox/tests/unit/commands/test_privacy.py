"""Errors of aggregates never contain a user's text, as they may be logged."""

import pytest
from pydantic import ValidationError
from relaybox.commands import Aggregate


class Diary(Aggregate):
    """An aggregate that a later release asks more of."""

    pages: int


def test_an_error_of_an_aggregate_holds_nothing_of_its_input() -> None:
    with pytest.raises(ValidationError, match="pages") as refused:
        Diary.model_validate({"pages": "a private word"})
    assert "private" not in str(refused.value)
