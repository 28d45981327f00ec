"""What can go wrong when a muse is asked; the `error_code` is the reason a failed request reports."""

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
    """Base of all errors of a muse. No message of this tree ever holds a key or a writer's text."""

    error_code = "MUSE_FAILED"


class MuseBriefIncomplete(MuseError):
    """Raised when a stage is to be proposed before an earlier one that it builds on has been confirmed."""

    error_code = "MUSE_BRIEF_INCOMPLETE"


class MuseNotInstalled(MuseError):
    """Raised at start-up when the chosen muse needs a library that is not installed."""

    error_code = "MUSE_NOT_INSTALLED"


class MuseUnavailable(MuseError):
    """Raised when the model's endpoint cannot be reached or answers 5xx; asking again later may help."""

    error_code = "MUSE_UNAVAILABLE"


class MuseRateLimited(MuseError):
    """Raised when the endpoint still answers 429 after the last retry; asking again later may help."""

    error_code = "MUSE_RATE_LIMITED"


class MuseTimedOut(MuseError):
    """Raised when no answer came within the time limit; asking again may help."""

    error_code = "MUSE_TIMED_OUT"


class MuseRefused(MuseError):
    """Raised when the endpoint refuses the request itself (4xx): wrong key, unknown model, wrong address."""

    error_code = "MUSE_REFUSED"


class MuseAnswerBroken(MuseError):
    """Raised when the model's answer is no proposal for the stage, even after it was told why."""

    error_code = "MUSE_ANSWER_BROKEN"
