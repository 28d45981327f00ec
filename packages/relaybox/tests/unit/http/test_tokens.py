"""Tokens: only valid ones are accepted, whatever an attacker constructs (RFC 8725)."""

import base64
import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from relaybox.http import Principal, SharedSecretVerifier, TokenExpired, TokenInvalid, make_token
from relaybox.settings import JwtSettings

SECRET = "a secret of 32 bytes at the least"
SETTINGS = JwtSettings(secret=SecretStr(SECRET), issuer="iss", audience="aud", leeway_s=5)
#: A fixed time, whenever the test runs.
FUTURE_S = 9_000_000_000
VERIFIER = SharedSecretVerifier(SETTINGS)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    all_of_them = {"iss": "iss", "aud": "aud", "sub": "ann", "iat": now, "exp": now + 60} | changes
    return {name: value for name, value in all_of_them.items() if value is not ...}


def signed(
    key: str = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any
) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


@contextmanager
def capture_checks(verifier: SharedSecretVerifier) -> Generator[list[str]]:
    """Return the list of tokens that are verified completely within the block."""
    checked: list[str] = []
    whole_check = verifier._claims

    def note(token: str) -> Any:
        checked.append(token)
        return whole_check(token)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "_claims", note)
        yield checked


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_issued_token_has_its_subject() -> None:
    assert await VERIFIER.verify(make_token(SETTINGS, "ann", 60)) == Principal(issuer="iss", subject="ann")


async def test_one_of_several_audiences_is_sufficient() -> None:
    assert (await VERIFIER.verify(signed(aud=["other", "aud"]))).subject == "ann"


@pytest.mark.guarantee("G80")
@pytest.mark.parametrize("claim", ["exp", "iat", "iss", "aud", "sub"])
async def test_every_claim_is_required(claim: str) -> None:
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(signed(**{claim: ...}))


@pytest.mark.guarantee("G80")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"aud": "other"},
        {"aud": []},
        {"iat": FUTURE_S},
        {"nbf": FUTURE_S},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"iat": [1]},
        {"exp": str(FUTURE_S)},
        {"exp": 10**30},
        {"exp": 1e30},
        {"exp": FUTURE_S * 1_000},
        {"iat": "1700000000"},
        {"iat": True},
        {"iat": -1},
        {"iat": float("nan")},
        {"nbf": "1700000000"},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "a\0b"},
        {"sub": "a\nb"},
        {"sub": 7},
    ],
)
async def test_invalid_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(signed(**changes))


async def test_token_is_valid_until_its_leeway_has_passed() -> None:
    assert (await VERIFIER.verify(signed(exp=time.time() - 1))).subject == "ann"
    with pytest.raises(TokenExpired):
        await VERIFIER.verify(signed(exp=time.time() - 60))


async def test_cached_token_expires() -> None:
    verifier = SharedSecretVerifier(SETTINGS)
    expired = signed(exp=time.time() - 60)
    verifier._store(expired, Principal(issuer="iss", subject="ann"), time.time() - 55)
    with pytest.raises(TokenExpired):
        await verifier.verify(expired)


async def test_valid_token_is_verified_once() -> None:
    verifier = SharedSecretVerifier(SETTINGS)
    with capture_checks(verifier) as checked:
        ann, bob = make_token(SETTINGS, "ann"), make_token(SETTINGS, "bob")
        subjects = [(await verifier.verify(token)).subject for token in (ann, bob, ann, bob)]
    assert subjects == ["ann", "bob", "ann", "bob"]
    assert checked == [ann, bob]


async def test_number_of_cached_tokens_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.http._tokens._CACHED_MAX", 2)
    verifier = SharedSecretVerifier(SETTINGS)
    tokens = [make_token(SETTINGS, subject) for subject in ("a", "b", "c")]
    with capture_checks(verifier) as checked:
        for token in (*tokens, tokens[2], tokens[1], tokens[0]):
            await verifier.verify(token)
    assert checked == [*tokens, tokens[0]]


async def test_invalid_token_is_not_cached() -> None:
    verifier = SharedSecretVerifier(SETTINGS)
    bad = signed(sub="x" * 256)
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await verifier.verify(bad)


@pytest.mark.guarantee("G80")
async def test_only_the_configured_secret_and_algorithm_are_accepted() -> None:
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(signed(key="b" * 64))
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(signed(key=SECRET * 2, algorithm="HS512"))
    unsigned = part(b'{"alg":"none","typ":"JWT"}') + "." + part(json.dumps(claims()).encode()) + "."
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(unsigned)


@pytest.mark.guarantee("G80")
async def test_critical_extension_is_refused() -> None:
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(signed(headers={"crit": ["exp"], "exp": 1}))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b.c",
        "..",
        "\u00e9.\u00e9.\u00e9",
        "x" * 9_000,
        part(b"[" * 6_000) + ".e30.e30",
        part(b'{"alg":' + b"[" * 5_000) + ".e30.e30",
        part(b'{"alg":"HS256","n":' + b"9" * 5_000 + b"}") + ".e30.e30",
        part(b"[]") + ".e30.e30",
        part(b'{"alg":["HS256"]}') + ".e30.e30",
    ],
)
async def test_malformed_token_is_invalid(token: str) -> None:
    with pytest.raises(TokenInvalid):
        await VERIFIER.verify(token)


async def test_length_of_a_token_is_limited() -> None:
    with pytest.raises(TokenInvalid, match="8192 bytes"):
        await VERIFIER.verify(signed(more="x" * 9_000))


async def test_refusal_repeats_nothing_of_the_token() -> None:
    with pytest.raises(TokenInvalid) as refused:
        await VERIFIER.verify(signed(iss="private-issuer"))
    assert "private-issuer" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\0"])
def test_token_for_an_invalid_subject_cannot_be_issued(subject: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        make_token(SETTINGS, subject)
