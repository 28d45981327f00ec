"""Reports of failures with any message of a muse."""

from uuid import uuid4

import pytest
from backend.genesis.agent import _storable_message
from backend.genesis.session import ReportFailure


@pytest.mark.guarantee("G06")
@pytest.mark.parametrize(
    ("message", "reported"),
    [
        ("the endpoint answered 503", "the endpoint answered 503"),
        ("x" * 4_000, "x" * 4_000),
        ("说" * 4_001, "说" * 4_000),
        (" " * 5_000 + "late", "late"),
        ("x" * 3_999 + " " * 10 + "y", "x" * 3_999 + " "),
        ("", "the muse gave no reason; request it again"),
        (" \n\t", "the muse gave no reason; request it again"),
        ("half\0way", "half\ufffdway"),
        ("lone \udce9 surrogate", "lone ? surrogate"),
    ],
    ids=[
        "short",
        "longest",
        "too long",
        "blanks first",
        "cut",
        "empty",
        "blank",
        "NUL",
        "surrogate",
    ],
)
def test_failure_of_a_muse_can_be_reported_with_any_message(message: str, reported: str) -> None:
    assert _storable_message(message) == reported
    report = ReportFailure(command_id=uuid4(), error_code="MUSE_FAILED", message=_storable_message(message))
    assert report.message == reported.strip()
