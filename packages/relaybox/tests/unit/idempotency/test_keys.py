"""Keys: as clients send them, as the library generates them, and as they are stored."""

import hashlib
import json
import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from relaybox.idempotency import (
    KeyInvalid,
    canonical_json,
    fingerprint_of,
    generate_key,
    generate_key_from_request,
    lock_number,
    parse_key,
    scope_of,
    stored_key,
)

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)
#: Keys that may be sent without quotes.
BARE = PRINTABLE.filter(lambda key: not set(key) & set(' ",'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SECRET = SecretStr("a secret of thirty-two bytes, or more")


def quoted(key: str) -> bytes:
    """Return *key* as a string of structured fields (RFC 8941, section 3.3.3)."""
    return b'"' + key.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


@pytest.mark.guarantee("G60")
@given(BARE)
def test_quoted_and_bare_are_the_same_key(key: str) -> None:
    assert parse_key([key.encode()]) == parse_key([quoted(key)]) == key


@pytest.mark.guarantee("G60")
@given(PRINTABLE)
def test_every_printable_key_can_be_quoted(key: str) -> None:
    assert parse_key([quoted(key)]) == key


@pytest.mark.guarantee("G60")
def test_request_without_header_has_no_key() -> None:
    assert parse_key([]) is None


@pytest.mark.guarantee("G60")
def test_blanks_around_a_key_are_ignored() -> None:
    assert parse_key([b' \t"k" ']) == parse_key([b"\t k\t"]) == "k"


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize(
    ("value", "key"),
    [
        (rb'"a\"b"', 'a"b'),
        (rb'"a\\b"', "a\\b"),
        (rb'"\\\""', '\\"'),
        (rb"a\b", "a\\b"),
        (b'"a, b"', "a, b"),
        (b"8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        (b"key=a;b", "key=a;b"),
    ],
)
def test_escapes_in_a_quoted_key_are_decoded(value: bytes, key: str) -> None:
    assert parse_key([value]) == key


@pytest.mark.guarantee("G60")
def test_key_has_at_most_255_bytes() -> None:
    assert parse_key([b"k" * 255]) == parse_key([quoted("k" * 255)]) == "k" * 255
    assert parse_key([quoted("\\" * 255)]) == "\\" * 255
    for value in (b"k" * 256, quoted("k" * 256)):
        with pytest.raises(KeyInvalid, match="longer than 255 bytes"):
            parse_key([value])


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize("values", [[b"a", b"b"], [b"a", b"a"], [b"a", b""], [b'"a"', b"a", b"a"]], ids=repr)
def test_several_headers_are_refused(values: list[bytes]) -> None:
    with pytest.raises(KeyInvalid, match="several headers"):
        parse_key(values)


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize("value", [b"", b" ", b"\t", b'""', b' "" '], ids=repr)
def test_empty_header_is_refused(value: bytes) -> None:
    with pytest.raises(KeyInvalid, match="is empty"):
        parse_key([value])


@pytest.mark.guarantee("G60")
@pytest.mark.parametrize(
    "value",
    [
        *(b"a,b", b"a, b", b'"a","b"', b'"a", "b"', b'a,"b"', b","),
        *(b"a b", b'a"b', b'"a', b'a"', b'"', b'"a"b', b'"a\\"', b'"a\\b"', b'"a";p=1'),
        *(b"a\x00", b"a\x1f", b"a\tb", b'"a\tb"', b"a\x7f", b"a\nb", b"a\r\nb: c"),
        *("é".encode(), '"é"'.encode(), "é".encode("latin-1"), "键".encode(), b"\xff"),
    ],
    ids=repr,
)
def test_several_keys_in_a_header_or_unprintable_ones_are_refused(value: bytes) -> None:
    with pytest.raises(KeyInvalid):
        parse_key([value])


@pytest.mark.guarantee("G60")
@given(st.binary(max_size=300))
def test_any_header_is_a_valid_key_or_refused(value: bytes) -> None:
    try:
        key = parse_key([value])
    except KeyInvalid:
        return
    assert key is not None
    assert 1 <= len(key) <= 255
    assert key.isascii()
    assert key.isprintable()


def test_refusal_does_not_repeat_the_key() -> None:
    with pytest.raises(KeyInvalid) as refused:
        parse_key([b"a secret of mine, badly written"])
    assert "secret" not in str(refused.value)


def test_generated_keys_do_not_change() -> None:
    """Stored keys must be found after an upgrade: these are of the first release."""
    assert generate_key("order", 42) == "idem:0091de5308f9c803216fb64b2d68d0db"
    assert generate_key() == "idem:e3b0c44298fc1c149afbf4c8996fb924"
    of_json = generate_key_from_request("POST", "/orders", {"b": [1, "题"], "a": None}, "anna")
    assert of_json == "auto:11aa5ed3981a968b4319034d0d1a5413"
    assert generate_key_from_request("POST", "/orders") == "auto:5c500112a5b2399f561fb06fe87eefcd"


def test_generated_key_is_the_documented_digest() -> None:
    parts = [b"POST", b"/orders", b'{"a":1}', b"anna"]
    told = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    expected = "auto:" + hashlib.sha256(told).hexdigest()[:32]
    assert generate_key_from_request("post", "/orders", {"a": 1}, "anna") == expected


@given(JSON, st.text(), st.text())
def test_generated_keys_have_a_prefix_and_can_be_sent(body: Any, path: str, user: str) -> None:
    key = generate_key_from_request("POST", path, body, user)
    assert re.fullmatch(r"auto:[0-9a-f]{32}", key)
    assert parse_key([key.encode()]) == key
    assert re.fullmatch(r"idem:[0-9a-f]{32}", generate_key(path, body, user))


@given(st.dictionaries(st.text(), JSON))
def test_json_is_compared_by_value_in_a_generated_key(body: dict[str, Any]) -> None:
    turned = dict(reversed(body.items()))
    keys = {
        generate_key_from_request("POST", "/orders", form, "anna")
        for form in (
            body,
            turned,
            json.dumps(turned),
            json.dumps(body, indent=2, ensure_ascii=False),
            json.dumps(turned, separators=(",", ":")).encode(),
        )
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    "request_",
    [
        ("PUT", "/orders", {"a": 1}, "anna"),
        ("POST", "/order", {"a": 1}, "anna"),
        ("POST", "/orders", {"a": 2}, "anna"),
        ("POST", "/orders", {"a": "1"}, "anna"),
        ("POST", "/orders", {"a": True}, "anna"),
        ("POST", "/orders", [["a", 1]], "anna"),
        ("POST", "/orders", None, "anna"),
        ("POST", "/orders", b"", "anna"),
        ("POST", "/orders", {"a": 1}, "bert"),
        ("POST", "/orders", {"a": 1}, ""),
    ],
    ids=str,
)
def test_other_request_has_another_generated_key(request_: tuple[Any, ...]) -> None:
    assert generate_key_from_request(*request_) != generate_key_from_request(
        "POST", "/orders", {"a": 1}, "anna"
    )


def test_parts_of_a_generated_key_are_not_ambiguous_when_joined() -> None:
    assert generate_key("ab", "c") != generate_key("a", "bc")
    assert generate_key("a", "") != generate_key("a")
    assert generate_key("a:b") != generate_key("a", "b")
    moved = (
        generate_key_from_request("POST", "/a", "b", "c"),
        generate_key_from_request("POST", "/ab", "", "c"),
    )
    assert len(set(moved)) == 2


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_other_parts_have_another_generated_key(one: list[str], other: list[str]) -> None:
    assert (generate_key(*one) == generate_key(*other)) == (one == other)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b"no json", "[" * 100_000, b'{"a":' * 100_000, "9" * 5_000, "\ud800"],
    ids=["no text", "no json", "deep", "deep bytes", "long number", "half a pair"],
)
def test_body_that_is_no_json_is_compared_by_bytes(body: Any) -> None:
    """Every body of a client has a key, and none causes an exception."""
    key = generate_key_from_request("POST", "/orders", body)
    assert key == generate_key_from_request("POST", "/orders", body)
    assert key != generate_key_from_request("POST", "/orders", body[:-1])


@pytest.mark.guarantee("G61")
@pytest.mark.parametrize(
    "name", ["anna", "x" * 127, "x" * 128, "x" * 70_000, "题", chr(0xD800), chr(0xDC80), ""]
)
def test_every_issuer_and_subject_have_a_scope(name: str) -> None:
    """A token's claims are JSON text of any length, also with halves of surrogate pairs."""
    found = {stored_key(scope_of(*pair), "k", SECRET) for pair in ((name, "a"), ("a", name), (name, name))}
    assert len(found) == 3


@pytest.mark.guarantee("G61")
@given(st.text(), st.text(), st.text(), st.text())
def test_other_issuer_or_subject_has_another_scope(
    issuer: str, subject: str, issuer_2: str, subject_2: str
) -> None:
    same = (issuer, subject) == (issuer_2, subject_2)
    assert (scope_of(issuer, subject) == scope_of(issuer_2, subject_2)) == same


@pytest.mark.guarantee("G61")
def test_issuer_and_subject_are_not_ambiguous_when_joined() -> None:
    names = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", ""),
        ("", "abc"),
        ("a:b", "c"),
        ("a", "b:c"),
        ("1:a", ""),
        ("", "1:a"),
    ]
    assert len({scope_of(*pair) for pair in names}) == len(names)


@pytest.mark.guarantee("G71")
@pytest.mark.parametrize("secret", [None, SECRET])
def test_stored_key_shows_neither_key_nor_principal(secret: SecretStr | None) -> None:
    stored = stored_key("anna", "a-clients-key", secret)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", stored)
    assert stored == stored_key("anna", "a-clients-key", secret)


@pytest.mark.guarantee("G61")
def test_other_principals_keys_and_secrets_have_other_stored_keys() -> None:
    found = {
        stored_key(scope, key, secret)
        for scope in ("a", "ab", "")
        for key in ("bc", "c", "abc")
        for secret in (None, SECRET, SecretStr("another secret of thirty-two bytes"))
    }
    assert len(found) == 27


def test_stored_keys_do_not_change() -> None:
    """A row of the last release must be found: these keys are of the first release."""
    assert stored_key("anna", "k", None) == "dsId8-etHzvPJ2RfgGWDAA"
    assert stored_key("anna", "k", SECRET) == "V2DbjfBCpGDOGByjM3pSYg"
    assert lock_number(stored_key("anna", "k", SECRET)) == 7176942483049594713


@given(st.text())
def test_number_of_a_lock_is_valid_in_postgresql(stored: str) -> None:
    assert -(2**63) <= lock_number(stored) < 2**63


LIKE = {
    "method": "POST",
    "path": "/orders",
    "query": b"a=1&b=2&a=3",
    "content_type": "application/json",
    "body_digest": hashlib.sha256(b"{}").digest(),
}


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"query": b"b=2&a=1&a=3"},
        {"query": b"a=3&b=2&a=1"},
        {"content_type": "application/json; charset=utf-8"},
        {"content_type": " Application/JSON ;x=y"},
    ],
    ids=str,
)
def test_retry_has_the_same_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint_of(**(LIKE | change)) == fingerprint_of(**LIKE)


CHANGES: list[dict[str, Any]] = [
    {},
    {"method": "PUT"},
    {"method": "post"},
    {"path": "/orders/"},
    {"path": "/Orders"},
    {"query": b""},
    {"query": b"a=1&b=2"},
    {"query": b"a=1&b=2&a=3&a=3"},
    {"query": b"a=1&b=2&a=%33"},
    {"content_type": ""},
    {"content_type": "text/json"},
    {"body_digest": hashlib.sha256(b"{ }").digest()},
    {"path": "/orders?a=1&b=2&a=3", "query": b""},
    {"path": "/ordersa=1", "query": b"&b=2&a=3"},
]


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize(("one", "other"), list(combinations(CHANGES, 2)), ids=str)
def test_other_request_has_another_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint_of(**(LIKE | one)) != fingerprint_of(**(LIKE | other))


def test_fingerprint_contains_its_version() -> None:
    """Fingerprints of two versions must not be compared; while the version is "1", this value stays."""
    assert re.fullmatch(r"1\.[A-Za-z0-9_-]{22}", fingerprint_of(**LIKE))
    assert fingerprint_of(**LIKE) == "1.HqKw54jJ-Hvdnsu7Ld5i6A"


@pytest.mark.parametrize(
    ("one", "other", "form"),
    [
        (b'{"a": 1, "b": [true, null]}', b'{"b":[true,null],"a":1}', b'{"a":1,"b":[true,null]}'),
        (b'{"a": 1}', b'{"a": 1.0}', b'{"a":1}'),
        (b"[100, 0, 0.5]", b"[1e2, -0.0, 5e-1]", b"[100,0,0.5]"),
        ('"é"'.encode(), b'"\\u00e9"', '"é"'.encode()),
    ],
)
def test_canonical_json_is_the_same_for_equal_values(one: bytes, other: bytes, form: bytes) -> None:
    """Stored fingerprints contain the digest of this form: it must not change."""
    assert canonical_json(one) == form
    assert canonical_json(other) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"[1, 2]", b"[2, 1]"),
        (b'{"a": 1}', b'{"a": "1"}'),
        (b"1", b"true"),
        (b"9007199254740992", b"9007199254740993"),
        (b"0.1", b"0.2"),
    ],
)
def test_canonical_json_differs_for_other_values(one: bytes, other: bytes) -> None:
    forms = {canonical_json(one), canonical_json(other)}
    assert len(forms) == 2
    assert None not in forms


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'"\\ud800"',
        "[1]".encode("utf-16"),
        b'{"a": 1, "a": 2}',
        b"NaN",
        b"1e400",
        b"1e-9999999999999999999999",
        b"0.10000000000000001",
        b"[" * 100_000,
        b"1" * 5_000,
    ],
)
def test_canonical_json_leaves_ambiguous_bodies_unchanged(body: bytes) -> None:
    assert canonical_json(body) is None
