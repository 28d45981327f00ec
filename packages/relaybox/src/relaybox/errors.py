"""The root of every error Relaybox raises on purpose."""

from typing import ClassVar

__all__ = ("RelayboxError", "SettingsError")


class RelayboxError(Exception):
    """Base of all errors of the library and the applications on it.

    ``error_code`` is stable and public: it stands in HTTP error bodies, logs and metrics.
    The message names the thing that failed and what to do about it.
    """

    error_code: ClassVar[str] = "RELAYBOX_ERROR"


class SettingsError(RelayboxError):
    """Raised when the environment lacks a setting or holds a malformed one; one line per setting."""

    error_code = "SETTINGS_INVALID"
