"""Errors of aggregates may be logged, so they contain no text of a user."""

import pytest
from pydantic import ValidationError
from relaybox.commands import Aggregate


class Diary(Aggregate):
    """An aggregate of a later release, which requires more fields."""

    pages: int


def test_error_of_an_aggregate_contains_no_input() -> None:
    with pytest.raises(ValidationError, match="pages") as refused:
        Diary.model_validate({"pages": "a private word"})
    assert "private" not in str(refused.value)
