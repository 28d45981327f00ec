"""The errors of muses; the `error_code` becomes the reason of the failed request."""

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
    """Base of all errors of muses. No message contains an API key or a text of the writer."""

    error_code = "MUSE_FAILED"


class MuseBriefIncomplete(MuseError):
    """Raised when a stage is to be proposed before an earlier stage that it builds on is confirmed."""

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
    """Raised when there was no response within the time limit; another request may succeed."""

    error_code = "MUSE_TIMED_OUT"


class MuseRefused(MuseError):
    """Raised when the endpoint refuses the request itself (4xx): wrong key, unknown model, wrong address."""

    error_code = "MUSE_REFUSED"


class MuseAnswerBroken(MuseError):
    """Raised when the model's response is no valid proposal, also after a retry."""

    error_code = "MUSE_ANSWER_BROKEN"
