"""What happened is what the story says, or the story breaks off."""

import httpx2

from backend.demo._timeline import StepMissed

__all__ = ("expect", "require")

_TEXT_CHARS_MAX = 500


def require(happened: bool, what: str) -> None:
    """Go on only if *happened*.

    Raises:
        StepMissed: it did not; *what* says what should have.
    """
    if not happened:
        raise StepMissed(what)


def expect(answer: httpx2.Response, what: str, *statuses: int) -> httpx2.Response:
    """*answer*, which has one of *statuses*.

    Raises:
        StepMissed: it has another; *what* names the step, and the product's own words say the remedy.
    """
    wanted = " or ".join(map(str, statuses))
    told = f"{what}: {wanted} expected, got {answer.status_code} {_told_by(answer)}"
    require(answer.status_code in statuses, told)
    return answer


def _told_by(answer: httpx2.Response) -> str:
    """An error by its code and message; anything else as it is, cut short."""
    try:
        body = answer.json()
        return f"{body['error_code']}: {body['message']}"
    except (ValueError, TypeError, KeyError):
        return answer.text[:_TEXT_CHARS_MAX]
