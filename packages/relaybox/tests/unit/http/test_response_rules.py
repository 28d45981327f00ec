"""How a request with a key ended, the headers that report it, and which responses cannot be stored."""

import pytest
from relaybox.http._response_rules import Outcome, final_outcome, outcome_headers, why_not_storable
from relaybox.idempotency import ResponseNotKept
from starlette.datastructures import Headers

COMPLETE = {"type": "http.response.body", "body": b"{}"}


@pytest.mark.parametrize(
    ("outcome", "status", "has_claim", "expected"),
    [
        (Outcome.IGNORED, 399, False, Outcome.IGNORED),
        (Outcome.IGNORED, 400, False, Outcome.REFUSED),
        (Outcome.IGNORED, 500, False, Outcome.REFUSED),
        (Outcome.REFUSED, 399, True, Outcome.EXECUTED),
        (Outcome.REFUSED, 400, True, Outcome.REFUSED),
        (Outcome.REFUSED, 399, False, Outcome.REFUSED),
        (Outcome.EXECUTED, 400, True, Outcome.EXECUTED),
        (Outcome.REPLAYED, 400, True, Outcome.REPLAYED),
    ],
)
def test_status_from_400_refuses_a_request_that_did_not_use_its_key(
    outcome: Outcome, status: int, has_claim: bool, expected: Outcome
) -> None:
    assert final_outcome(outcome, status, has_claim=has_claim) is expected


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (Outcome.IGNORED, 399, {b"idempotency-status": b"ignored"}),
        (Outcome.IGNORED, 400, {}),
        (Outcome.EXECUTED, 399, {b"idempotency-expires": b"Thu, 01 Jan 1970 00:01:30 GMT"}),
        (Outcome.EXECUTED, 400, {}),
        (Outcome.REPLAYED, 200, {}),
    ],
)
def test_responses_below_400_report_how_their_key_was_used(
    outcome: Outcome, status: int, expected: dict[bytes, bytes]
) -> None:
    assert dict(outcome_headers(outcome, status, refusal=None, expires_at_s=90.5)) == expected


def test_response_that_was_not_kept_is_replayed_with_its_location() -> None:
    refusal = ResponseNotKept(201, {"location": "/orders/1"})
    headers = outcome_headers(Outcome.REPLAYED, 409, refusal=refusal, expires_at_s=0)
    assert dict(headers) == {b"idempotent-replayed": b"true", b"location": b"/orders/1"}


@pytest.mark.guarantee("G67")
@pytest.mark.parametrize(
    ("headers", "message", "reason"),
    [
        ({}, COMPLETE, None),
        ({}, {**COMPLETE, "more_body": True}, "streams its response"),
        ({"content-length": "9"}, {**COMPLETE, "more_body": True}, None),
        ({}, {"type": "http.response.pathsend"}, "streams its response"),
        ({"content-encoding": "gzip"}, COMPLETE, "compresses its response"),
        ({"content-encoding": "identity"}, COMPLETE, None),
    ],
)
def test_streamed_and_compressed_responses_cannot_be_stored(
    headers: dict[str, str], message: dict[str, object], reason: str | None
) -> None:
    found = why_not_storable(Headers(headers), message, has_claim=True)
    assert found is None if reason is None else (found or "").startswith(reason)


def test_compressed_response_without_a_claim_needs_no_storing() -> None:
    assert why_not_storable(Headers({"content-encoding": "gzip"}), COMPLETE, has_claim=False) is None
