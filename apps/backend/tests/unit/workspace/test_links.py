"""Stored passwords of links, and signed share tokens."""

from uuid import uuid4

import pytest
from backend.workspace.errors import ShareTokenInvalid
from backend.workspace.http import ShareTokens
from backend.workspace.sharing._passwords import COST, Cost, hash_password, is_password
from pydantic import SecretStr
from relaybox.http import SharedSecretVerifier, TokenInvalid, make_token
from relaybox.settings import JwtSettings

SETTINGS = JwtSettings(secret=SecretStr("a secret of 32 bytes at the least"))
CHEAP = Cost(log_n=4, p=1)


def test_stored_password_matches_only_itself() -> None:
    kept = hash_password("correct horse", CHEAP)
    assert is_password("correct horse", kept)
    for wrong in ("correct horsf", "Correct horse", "", "correct horse "):
        assert not is_password(wrong, kept)


def test_same_password_has_a_different_hash_each_time() -> None:
    first, second = [hash_password("correct horse", CHEAP) for _ in range(2)]
    assert first != second
    assert "correct" not in first


def test_stored_password_is_valid_after_the_cost_was_raised() -> None:
    assert (hash_password("x")).startswith(f"scrypt${COST.log_n}${COST.p}$")
    assert is_password("x", hash_password("x", Cost(log_n=5, p=2)))


def test_unicode_composition_of_a_password_does_not_matter() -> None:
    assert is_password("Zoe\u0308", hash_password("Zo\u00eb", CHEAP))


async def test_share_token_names_its_link_until_it_expires() -> None:
    tickets, link_id = ShareTokens(SETTINGS), uuid4()
    assert await tickets.read_link_id(tickets.issue(link_id)) == link_id
    with pytest.raises(ShareTokenInvalid):
        await tickets.read_link_id(tickets.issue(link_id, -SETTINGS.leeway_s - 1))


async def test_share_token_is_never_accepted_as_bearer_token_or_reverse() -> None:
    tickets, verifier = ShareTokens(SETTINGS), SharedSecretVerifier(SETTINGS)
    with pytest.raises(TokenInvalid):
        await verifier.verify(tickets.issue(uuid4()))
    for token in (make_token(SETTINGS, str(uuid4())), make_token(SETTINGS, "teacher"), "", "a.b.c"):
        with pytest.raises(ShareTokenInvalid):
            await tickets.read_link_id(token)


async def test_share_token_signed_with_another_secret_is_invalid() -> None:
    other = SETTINGS.model_copy(update={"secret": SecretStr("another secret of 32 bytes or more")})
    with pytest.raises(ShareTokenInvalid):
        await ShareTokens(SETTINGS).read_link_id(ShareTokens(other).issue(uuid4()))
