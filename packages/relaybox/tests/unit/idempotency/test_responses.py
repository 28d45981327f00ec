"""The stored parts of a response, and the replay made of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relaybox.idempotency import (
    REPLAYED_HEADERS,
    Claim,
    KeyReused,
    ResponseNotKept,
    ResponseParts,
    StoredResponse,
    replay_of,
    replayable_headers,
    split_body,
    stored_result,
)
from relaybox.idempotency._response import has_separate_body

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = {"content-type": "application/json"}


def claim(**changes: Any) -> Claim:
    terms: dict[str, Any] = {"key": "k", "scope": "anna", "fingerprint": "1.abc", "ttl_s": 60.0}
    return Claim(**{**terms, "stored_key": "stored", "body_bytes_max": 1024, **changes})


def stored(result: dict[str, Any], body: bytes | None = None) -> StoredResponse:
    """Return *result* as a store returns it."""
    return StoredResponse(
        result=result, body=body, created_at=NOW, expires_at=NOW + timedelta(days=1), age_s=0.0
    )


def again(answer: ResponseParts, **changes: Any) -> ResponseParts:
    """Return *answer* after it was stored in two parts and read again."""
    return replay_of(found(*split_body(stored_result(answer, claim(**changes)))), claim()).response


def found(document: str, apart: bytes | None) -> StoredResponse:
    """Return the response from a claim and a separately stored body."""
    row = {"result": document, "created_at": NOW, "expires_at": NOW, "age_s": 1.0}
    return StoredResponse.from_row(row, apart)


@pytest.mark.guarantee("G66")
@given(
    st.integers(200, 399),
    st.dictionaries(
        st.sampled_from(sorted(REPLAYED_HEADERS)), st.text(st.characters(max_codepoint=255, min_codepoint=32))
    ),
    st.binary(max_size=1024),
)
def test_replay_has_the_same_status_body_and_headers(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = ResponseParts(status=status, headers=headers, body=body)
    assert again(answer) == answer


@pytest.mark.guarantee("G67")
@pytest.mark.parametrize("body", [b"", b"empty", b"too large", b"\x00", b"{}"], ids=repr)
@pytest.mark.parametrize(
    "headers", [JSON, {}, {"content-type": "text/csv"}, {**JSON, "location": "/a"}], ids=str
)
def test_bodies_and_content_types_are_never_confused(body: bytes, headers: dict[str, str]) -> None:
    answer = ResponseParts(status=200, headers=headers, body=body)
    assert again(answer) == answer


@pytest.mark.guarantee("G66")
@pytest.mark.parametrize(
    "name",
    [
        "set-cookie",
        "date",
        "authorization",
        "www-authenticate",
        "x-request-id",
        "retry-after",
        "ratelimit",
        "age",
        "x-own",
    ],
)
def test_headers_of_one_exchange_are_not_stored(name: str) -> None:
    answer = ResponseParts(status=200, headers={**JSON, name: "secret"}, body=b"{}")
    assert "secret" not in str(stored_result(answer, claim()))
    assert replayable_headers([(name.encode(), b"secret")]) == {}


@pytest.mark.guarantee("G66")
def test_replayed_headers_are_the_allow_list() -> None:
    allowed = "Content-Type, Content-Language, Location, Content-Location, ETag, Last-Modified, Link"
    assert set(allowed.lower().split(", ")) == REPLAYED_HEADERS


@pytest.mark.guarantee("G66")
def test_headers_of_any_case_and_number_are_stored() -> None:
    raw = [(b"Content-Type", b"text/plain"), (b"LINK", b"</a>"), (b"link", b"</b>"), (b"ETag", b'"\xe9"')]
    assert replayable_headers(raw) == {"content-type": "text/plain", "link": "</a>, </b>", "etag": '"é"'}


def test_default_headers_are_not_stored() -> None:
    assert "headers" not in stored_result(ResponseParts(status=200, body=b"{}"), claim())
    assert stored_result(ResponseParts(status=200, headers={}), claim())["headers"] == {}


@pytest.mark.guarantee("G67")
def test_body_of_the_limit_is_stored_and_a_larger_one_is_not() -> None:
    fits, larger = (ResponseParts(status=200, body=b"x" * length) for length in (1024, 1025))
    assert again(fits) == fits
    with pytest.raises(ResponseNotKept):
        again(larger)


@pytest.mark.guarantee("G67")
@pytest.mark.parametrize("body", [b"x", None], ids=["over the limit", "a stream"])
@pytest.mark.parametrize("headers", [{}, {"location": "/orders/1"}], ids=["no location", "location"])
def test_tombstone_has_status_and_location_of_the_response(
    body: bytes | None, headers: dict[str, str]
) -> None:
    with pytest.raises(ResponseNotKept) as told:
        again(ResponseParts(status=201, headers=headers, body=body), body_bytes_max=0)
    assert told.value.original_status == 201
    assert told.value.location == headers.get("location")
    assert told.value.error_code == "RESPONSE_NOT_KEPT"


@pytest.mark.guarantee("G67")
def test_empty_body_is_stored_with_a_limit_of_zero() -> None:
    nothing = ResponseParts(status=204, headers={}, body=b"")
    assert again(nothing, body_bytes_max=0) == nothing


@pytest.mark.guarantee("G67")
def test_missing_body_is_not_replayed_as_empty() -> None:
    """The slot may have been emptied before its claim, after a clock was set back: nothing runs twice."""
    result = stored_result(ResponseParts(status=200, body=b"{}"), claim())
    document = {name: one for name, one in result.items() if name != "body"}
    with pytest.raises(ResponseNotKept):
        replay_of(stored(document), claim())


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("body", [b"{}", b"", None], ids=["kept", "empty", "too large"])
def test_response_to_another_request_is_not_replayed(body: bytes | None) -> None:
    result = stored_result(ResponseParts(status=200, body=body), claim(fingerprint="1.other"))
    with pytest.raises(KeyReused) as refused:
        replay_of(stored(result, body), claim())
    assert refused.value.error_code == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.guarantee("G62")
def test_result_without_a_fingerprint_is_never_replayed() -> None:
    with pytest.raises(KeyReused):
        replay_of(stored({"status": 200, "body": "empty"}), claim())


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@pytest.mark.guarantee("G66")
@given(
    st.dictionaries(
        TEXTS.filter(lambda name: not name.startswith("~")),
        st.integers() | TEXTS | st.just("~b"),
    ),
    st.none() | st.binary(max_size=600) | TEXTS.map(str.encode) | st.just(b"~b"),
)
def test_json_result_is_read_as_the_same_document(result: dict[str, Any], body: bytes | None) -> None:
    result = result if body is None else {**result, "body": body}
    document, apart = split_body(result)
    assert found(document, apart).document() == result
    assert apart is None or has_separate_body(document), "the body would not be found"


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"x" * 512, "\u00e9".encode() * 256, b"\\u0000", b"\x01\x7f", b'"~b": true'],
    ids=["empty", "JSON", "512 bytes", "512 bytes of 256 letters", "a backslash", "control", "our mark"],
)
def test_short_text_is_stored_in_its_claim(body: bytes) -> None:
    document, apart = split_body({"status": 200, "body": body})
    assert apart is None
    assert not has_separate_body(document)
    assert found(document, None).body == body


@pytest.mark.parametrize(
    "body",
    [b"x" * 513, "\u00e9".encode() * 256 + b"x", b"a\x00b", b"\xff", b"\xed\xa0\x80", "\u00e9".encode()[:1]],
    ids=["513 bytes", "513 bytes of 257 letters", "NUL", "no text", "half a pair", "half a letter"],
)
def test_other_bodies_are_stored_separately(body: bytes) -> None:
    document, apart = split_body({"status": 200, "body": body})
    assert apart == body
    assert has_separate_body(document)
    assert found(document, body).document() == {"status": 200, "body": body}


@pytest.mark.parametrize("name", ["~t", "~b"])
@pytest.mark.parametrize("body", [None, b"text", b"\x00"], ids=["no body", "inside", "apart"])
def test_result_with_a_reserved_name_cannot_be_stored(name: str, body: bytes | None) -> None:
    """It would be read as a body, or without one."""
    with pytest.raises(ValueError, match=name):
        split_body({name: "x", "body": body})


@pytest.mark.parametrize("one", [float("nan"), [float("-inf")], {"a": "\x00"}, {"\x00": 1}, object], ids=repr)
@pytest.mark.parametrize("body", [b"", None])
def test_result_that_is_no_json_cannot_be_stored(one: Any, body: bytes | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message depends on the writer of the JSON
        split_body({"one": one, "body": body})


def test_secret_response_is_not_reported_as_too_large() -> None:
    with pytest.raises(ResponseNotKept, match="held a secret") as told:
        again(ResponseParts(status=201, headers=JSON, body=b"{}"), secret=True)
    assert "too large" not in str(told.value)
    nothing = ResponseParts(status=204, headers={}, body=b"")
    assert again(nothing, secret=True) == nothing
