"""The errors of muses; the agent reports their `error_code` and message as the reason of a failed request."""

from relaybox.errors import RelayboxError

__all__ = [
    "MuseAnswerBroken",
    "MuseBriefIncomplete",
    "MuseError",
    "MuseNotInstalled",
    "MuseRateLimited",
    "MuseRefused",
    "MuseTimedOut",
    "MuseUnavailable",
]


class MuseError(RelayboxError):
    """Base class of the errors of muses. No message contains an API key or a text of the writer."""

    error_code = "MUSE_FAILED"


class MuseBriefIncomplete(MuseError):
    """Raised when the proposal needs the content of an earlier stage that is not confirmed."""

    error_code = "MUSE_BRIEF_INCOMPLETE"


class MuseNotInstalled(MuseError):
    """Raised at start-up when the chosen muse needs a library that is not installed."""

    error_code = "MUSE_NOT_INSTALLED"


class MuseUnavailable(MuseError):
    """Raised when the model's endpoint cannot be reached or returns 5xx; a later request may succeed."""

    error_code = "MUSE_UNAVAILABLE"


class MuseRateLimited(MuseError):
    """Raised when the endpoint still returns 429 after the last retry; a later request may succeed."""

    error_code = "MUSE_RATE_LIMITED"


class MuseTimedOut(MuseError):
    """Raised when there was no proposal within MUSE_TIMEOUT_S; a later request may succeed."""

    error_code = "MUSE_TIMED_OUT"


class MuseRefused(MuseError):
    """Raised when the endpoint returns 4xx, except 429: wrong key, unknown model or wrong address."""

    error_code = "MUSE_REFUSED"


class MuseAnswerBroken(MuseError):
    """Raised when neither the model's first response nor its response to a retry is a valid proposal."""

    error_code = "MUSE_ANSWER_BROKEN"
