"""JSON of unknown clients: parsed fast, refused with a code, and limited in depth."""

from typing import Any

import pytest
from relaybox.http import JsonNotStorable, JsonTooDeep, JsonTooManyValues, MalformedJson
from relaybox.http._body import VALUES_MAX, parse_json


def nested(depth: int, closed: bool = True) -> bytes:
    return b"[" * depth + (b"]" * depth if closed else b"")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, true, null, "x"]} ', {"a": [1, 2.5, True, None, "x"]}),
        ('"科幻"'.encode(), "科幻"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\\u0000 is only text"', "\\u0000 is only text"),
        (b'"NaN and Infinity, 9e999, ' + b"9" * 300 + b'"', "NaN and Infinity, 9e999, " + "9" * 300),
        (b"1e308", 1e308),
        (b"1e-400", 0.0),
        (b"9007199254740993", 9007199254740993),
        (b"9" * 300, int("9" * 300)),
        (b'"' + b"[" * 100 + b'"', "[" * 100),
        (b"[" + b",".join([b"[]"] * 100) + b"]", [[]] * 100),
    ],
)
def test_storable_json_is_parsed(raw: bytes, value: Any) -> None:
    assert parse_json(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b"[1,]",
        b'{"a": 1} x',
        b"\xff",
        b'"\xff"',
        b'"\x00"',
        b'"\n"',
        b'"\\u12"',
        b"\xef\xbb\xbf{}",
    ],
)
def test_invalid_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_json(raw)


def test_64_levels_are_accepted_and_65_are_not() -> None:
    assert parse_json(nested(64)) is not None
    with pytest.raises(JsonTooDeep):
        parse_json(nested(65))


def test_objects_and_arrays_both_count_as_levels() -> None:
    with pytest.raises(JsonTooDeep):
        parse_json(b'{"a":[' * 33 + b"]}" * 33)


@pytest.mark.guarantee("G83")
@pytest.mark.parametrize("depth", [150, 250, 10_000, 500_000])
@pytest.mark.parametrize("closed", [True, False])
def test_any_depth_is_refused_without_a_crash(depth: int, closed: bool) -> None:
    with pytest.raises(JsonTooDeep if closed or depth > 200 else MalformedJson):
        parse_json(nested(depth, closed))


def test_number_of_values_is_checked_before_the_depth() -> None:
    with pytest.raises(JsonTooManyValues):
        parse_json(nested(1_000_000))


@pytest.mark.parametrize(
    "raw",
    [
        rb'"\u0000"',
        rb'{"a": ["x", {"b": "y\u0000z"}]}',
        rb'{"k\u0000": 1}',
        rb'"\ud800"',
        rb'"\ude00"',
        rb'{"\ud83d": 1}',
        b"NaN",
        b"[-Infinity]",
        b"1e400",
        b'{"a": -1E+400}',
        b"1e0400",
        b"9" * 220 + b"e99",
        b"9" * 400,
        b"9" * 5_000,
        b"-" + b"9" * 5_000,
    ],
)
def test_json_that_postgresql_cannot_store_is_refused(raw: bytes) -> None:
    with pytest.raises(JsonNotStorable):
        parse_json(raw)


def test_refusal_does_not_repeat_the_input() -> None:
    with pytest.raises(MalformedJson) as refused:
        parse_json(b'{"private": hidden}')
    assert "hidden" not in str(refused.value)
    assert "private" not in str(refused.value)


@pytest.mark.parametrize("value", [b"1234", b"[]", b"{}", b'"a"', b'"\\""', b'"\\\\"'])
def test_large_json_with_too_many_values_is_refused(value: bytes) -> None:
    raw = b"[" + b" , ".join([value] * (VALUES_MAX + 1)) + b"]"
    with pytest.raises(JsonTooManyValues, match="250000 values"):
        parse_json(raw)


@pytest.mark.parametrize("text", [b"[,{", b'\\"', b"\\\\,", b'\\\\\\",'])
def test_values_inside_a_text_are_not_counted(text: bytes) -> None:
    parsed = parse_json(b'{"pgn": "' + text * (VALUES_MAX * 2) + b'"}')
    assert list(parsed) == ["pgn"]
