"""Pure functions that convert the payload of one version of an event to the payload of the next version.

They describe what earlier releases have written, so they use no constant that a later release may change.
"""

from typing import Any

__all__ = ("created_from_v1",)


def created_from_v1(payload: dict[str, Any]) -> dict[str, Any]:
    """Add the first stage of the session, which was CONCEPT_SELECTION for every session of version 1."""
    return {**payload, "current_stage": "CONCEPT_SELECTION"}
