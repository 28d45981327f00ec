"""Idempotent requests: the same key, one effect, the same answer."""

from relaybox.idempotency._answer import (
    REPLAYED_HEADERS,
    Answer,
    Claim,
    Replay,
    Stored,
    kept_headers,
    replay_of,
    result_of,
)
from relaybox.idempotency._errors import (
    IdempotencyError,
    KeyInvalid,
    KeyMissing,
    KeyReused,
    RequestInFlight,
    ResponseNotKept,
)
from relaybox.idempotency._keys import (
    KEY_HEADERS,
    fingerprint_of,
    generate_key,
    generate_key_from_request,
    lock_number,
    parse_key,
    scope_of,
    stored_key,
)
from relaybox.idempotency._service import (
    QUERIES,
    IdempotencyService,
    IdempotencyStore,
    Ttl,
    parted,
    seconds_of,
)
from relaybox.idempotency._sweep import Sweeper, Swept, sweep

__all__ = (
    "KEY_HEADERS",
    "QUERIES",
    "REPLAYED_HEADERS",
    "Answer",
    "Claim",
    "IdempotencyError",
    "IdempotencyService",
    "IdempotencyStore",
    "KeyInvalid",
    "KeyMissing",
    "KeyReused",
    "Replay",
    "RequestInFlight",
    "ResponseNotKept",
    "Stored",
    "Sweeper",
    "Swept",
    "Ttl",
    "fingerprint_of",
    "generate_key",
    "generate_key_from_request",
    "kept_headers",
    "lock_number",
    "parse_key",
    "parted",
    "replay_of",
    "result_of",
    "scope_of",
    "seconds_of",
    "stored_key",
    "sweep",
)
