"""Invalid input of every kind gets its documented status and `error_code`."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx2 as httpx
import jwt
import pytest

from tests.fixtures.product import SESSIONS, Product, Writer

UNKNOWN_ID = "5f0c3c0e-9a4c-4b8e-8f52-0d1df3a5affe"
JSON = {"Content-Type": "application/json"}
FEEDBACK = b'{"command_type": "SubmitFeedback", "payload": {"feedback": %s}}'
CONFIRM = b'{"command_type": "ConfirmStage", "payload": %s}'
VERSION = b'{"command_type": "AbandonSession", "expected_version": %s}'
DEEP = b'{"command_type": "ConfirmStage", "payload": {"content": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}"


@pytest.fixture(scope="module")
def session(product: Product) -> Iterator[str]:
    with product.writer() as writer:
        yield writer.create()


@pytest.fixture
def commands(session: str) -> str:
    return f"{SESSIONS}/{session}/commands"


def outcome(answer: httpx.Response) -> tuple[int, str]:
    body: Mapping[str, Any] = answer.json()
    assert body["message"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, body["error_code"]


WRONG_COMMANDS: dict[str, tuple[bytes, int, str]] = {
    "broken JSON": (b'{"command_type": ', 400, "MALFORMED_JSON"),
    "no body": (b"", 400, "MALFORMED_JSON"),
    "not UTF-8": (b"\xff\xfe", 400, "MALFORMED_JSON"),
    "5 MB": (b'{"a":"' + b"x" * 5_000_000 + b'"}', 413, "BODY_TOO_LARGE"),
    "10,000 levels": (DEEP, 422, "JSON_TOO_DEEP"),
    "NUL": (FEEDBACK % b'"a\\u0000b"', 422, "JSON_NOT_STORABLE"),
    "half a surrogate pair": (FEEDBACK % b'"\\ud800"', 422, "JSON_NOT_STORABLE"),
    "beyond a double": (CONFIRM % b'{"choice": 1e999}', 422, "JSON_NOT_STORABLE"),
    "beyond 64 bits": (CONFIRM % b'{"choice": 99999999999999999999}', 422, "VALIDATION_ERROR"),
    "not an object": (b"[]", 422, "VALIDATION_ERROR"),
    "null": (b"null", 422, "VALIDATION_ERROR"),
    "no command_type": (b'{"payload": {}}', 422, "VALIDATION_ERROR"),
    "command_type is a number": (b'{"command_type": 7}', 422, "VALIDATION_ERROR"),
    "superfluous field": (b'{"command_type": "X", "extra": 1}', 422, "VALIDATION_ERROR"),
    "version beyond the column": (VERSION % b"2147483648", 422, "VALIDATION_ERROR"),
    "another version": (VERSION % b"77", 409, "STALE_VERSION"),
    "empty feedback": (FEEDBACK % b'""', 422, "VALIDATION_ERROR"),
    "long feedback": (FEEDBACK % (b'"' + b"x" * 4_001 + b'"'), 422, "VALIDATION_ERROR"),
    "unknown command": (b'{"command_type": "Nonsense"}', 422, "UNKNOWN_COMMAND"),
    "an agent's command": (b'{"command_type": "ReportProposal"}', 422, "UNKNOWN_COMMAND"),
    "creation as a command": (b'{"command_type": "CreateSession"}', 422, "UNKNOWN_COMMAND"),
    "feedback on nothing": (FEEDBACK % b'"x"', 422, "NO_PROPOSAL"),
    "confirmation of nothing": (CONFIRM % b'{"choice": 0}', 422, "NO_PROPOSAL"),
    "a stage to come": (CONFIRM % b'{"stage": "WORLDVIEW", "choice": 0}', 422, "WRONG_STAGE"),
    "no stage": (CONFIRM % b'{"stage": "NOWHERE", "choice": 0}', 422, "VALIDATION_ERROR"),
    "half a concept": (CONFIRM % b'{"content": {"title": "x"}}', 422, "STAGE_CONTENT_INVALID"),
    "not in this stage": (b'{"command_type": "RequestStageProposal"}', 422, "WRONG_STAGE"),
}


@pytest.mark.guarantee("G82")
@pytest.mark.parametrize("wrong", WRONG_COMMANDS)
def test_invalid_command_gets_its_status_and_code(
    writer: Writer, session: str, commands: str, wrong: str
) -> None:
    body, status, code = WRONG_COMMANDS[wrong]
    before = writer.state(session)
    assert outcome(writer.post(commands, content=body, headers=JSON)) == (status, code)
    assert writer.state(session) == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"]
)
def test_body_other_than_json_is_an_unsupported_media_type(
    writer: Writer, commands: str, content_type: str
) -> None:
    answer = writer.post(commands, content=b"{}", headers={"Content-Type": content_type})
    assert outcome(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.guarantee("G80")
def test_invalid_token_is_refused_with_its_code(product: Product) -> None:
    now = int(time.time())
    claims = {"iss": "relaybox", "aud": "relaybox-api", "sub": "writer", "iat": now, "exp": now + 60}
    other_secret = "x" * 40
    tokens = {
        "not a token": "TOKEN_INVALID",
        jwt.encode(claims, other_secret, "HS256"): "TOKEN_INVALID",
        jwt.encode(claims, "", "none"): "TOKEN_INVALID",
        product.token("writer", issuer="another-issuer"): "TOKEN_INVALID",
        product.token("writer", audience="something-else"): "TOKEN_INVALID",
        jwt.encode(
            claims | {"iat": now - 900, "exp": now - 600}, product.environment["JWT_SECRET"], "HS256"
        ): "TOKEN_EXPIRED",
    }
    for token, code in tokens.items():
        with Writer(product.environment["API_URL"], token) as client:
            answer = client.get(SESSIONS)
            assert outcome(answer) == (401, code)
            assert answer.headers["www-authenticate"].startswith("Bearer")
    with Writer(product.environment["API_URL"], None) as client:
        assert outcome(client.get(SESSIONS)) == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("session_id", [UNKNOWN_ID, "not-a-uuid", "0", "%00", "é", "x" * 3_000])
def test_unknown_id_is_not_found(writer: Writer, session_id: str) -> None:
    for path in ("state", "events", f"commands/{UNKNOWN_ID}", f"tasks/{UNKNOWN_ID}"):
        assert outcome(writer.get(f"{SESSIONS}/{session_id}/{path}")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "params",
    [
        {"cursor": "nonsense"},
        {"cursor": "W10="},
        {"cursor": "x" * 201},
        {"cursor": "eyJhIjoxfQ=="},
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"limit": "9" * 5_000},
    ],
)
def test_invalid_page_is_a_validation_error(writer: Writer, params: dict[str, str]) -> None:
    assert outcome(writer.get(SESSIONS, params=params)) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("body", [b'{"novel_id": "7"}', b'{"novel_id": 7}', b'{"title": "x"}', b"[]"])
def test_malformed_session_is_not_created(writer: Writer, body: bytes) -> None:
    assert outcome(writer.post(SESSIONS, content=body, headers=JSON)) == (422, "VALIDATION_ERROR")


def test_a_chain_id_must_be_a_uuid(writer: Writer, commands: str) -> None:
    headers = {"X-Correlation-ID": "the chain"}
    answer = writer.post(commands, json={"command_type": "AbandonSession"}, headers=headers)
    assert outcome(answer) == (400, "HEADER_INVALID")


def test_precedence_is_401_404_422_schema_409_pending_422_stage(
    product: Product,
    writer: Writer,
    stranger: Writer,
    agent_paused: Callable[[], AbstractContextManager[None]],
) -> None:
    session = writer.create()
    path = f"{SESSIONS}/{session}/commands"
    with agent_paused():
        assert writer.command(session, "RequestConceptGeneration").status_code == 202
        with Writer(product.environment["API_URL"], None) as anonymous:
            assert outcome(anonymous.post(path, content=b"{", headers=JSON)) == (401, "TOKEN_MISSING")
        # Requests with several errors, each with one error less.
        unknown = {"command_type": "Nonsense"}
        invalid = {"command_type": "RequestConceptGeneration", "payload": {"surprise": 1}}
        assert outcome(stranger.post(path, json=unknown)) == (404, "NOT_FOUND")
        assert outcome(stranger.post(path, json={})) == (404, "NOT_FOUND")
        assert outcome(writer.post(path, json=unknown)) == (422, "UNKNOWN_COMMAND")
        assert outcome(writer.post(path, json=invalid)) == (422, "VALIDATION_ERROR")
        duplicate = writer.command(session, "RequestConceptGeneration")
        assert outcome(duplicate) == (409, "DUPLICATE_COMMAND")
        stage = writer.command(session, "RequestStageProposal")
        assert outcome(stage) == (422, "PROPOSAL_PENDING")
    writer.wait_until_settled(session)
