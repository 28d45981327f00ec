"""What opens a link: passwords as they are kept, tickets as they are signed."""

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


def test_a_password_is_known_again_and_no_other_is() -> None:
    kept = hash_password("correct horse", CHEAP)
    assert is_password("correct horse", kept)
    for wrong in ("correct horsf", "Correct horse", "", "correct horse "):
        assert not is_password(wrong, kept)


def test_the_same_password_is_kept_otherwise_each_time() -> None:
    first, second = [hash_password("correct horse", CHEAP) for _ in range(2)]
    assert first != second
    assert "correct" not in first


def test_a_kept_password_outlives_a_higher_price() -> None:
    assert (hash_password("x")).startswith(f"scrypt${COST.log_n}${COST.p}$")
    assert is_password("x", hash_password("x", Cost(log_n=5, p=2)))


def test_letters_count_however_they_are_composed() -> None:
    assert is_password("Zoe\u0308", hash_password("Zo\u00eb", CHEAP))


async def test_a_ticket_names_its_link_until_it_is_too_old() -> None:
    tickets, link_id = ShareTokens(SETTINGS), uuid4()
    assert await tickets.read_link_id(tickets.issue(link_id)) == link_id
    with pytest.raises(ShareTokenInvalid):
        await tickets.read_link_id(tickets.issue(link_id, -SETTINGS.leeway_s - 1))


async def test_a_ticket_and_a_bearer_token_are_never_taken_for_each_other() -> None:
    tickets, verifier = ShareTokens(SETTINGS), SharedSecretVerifier(SETTINGS)
    with pytest.raises(TokenInvalid):
        await verifier.verify(tickets.issue(uuid4()))
    for token in (make_token(SETTINGS, str(uuid4())), make_token(SETTINGS, "teacher"), "", "a.b.c"):
        with pytest.raises(ShareTokenInvalid):
            await tickets.read_link_id(token)


async def test_a_ticket_of_another_secret_is_none() -> None:
    other = SETTINGS.model_copy(update={"secret": SecretStr("another secret of 32 bytes or more")})
    with pytest.raises(ShareTokenInvalid):
        await ShareTokens(SETTINGS).read_link_id(ShareTokens(other).issue(uuid4()))
