"""The relays keep the outbox short: each looks now and then, one acts."""

import asyncio
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.outbox import RetentionStep, retain

__all__ = ("keep_short",)

#: Slots live for hours; a look is one statement.
_PAUSE_S: Final = 60.0
#: With a short retention more often, so that a slot's life is made of so many looks.
_LOOKS_PER_LIFE: Final = 50
_log = structlog.get_logger(__name__)


async def keep_short(database: Database, *, keep_h: float) -> None:
    """Remove SENT rows after *keep_h* hours, for ever; ends by cancellation only.

    Not on the keeper's connection: emptying a large slot may take longer than a lease.
    """
    pause_s = min(_PAUSE_S, keep_h * 3_600 / _LOOKS_PER_LIFE)
    while True:
        await asyncio.sleep(pause_s)
        try:
            async with database.connection() as connection:
                steps = await retain(connection, keep_h=keep_h)
        except DatabaseError as error:
            # The pump and the keeper say so at a higher level, and wait for it.
            _log.debug("relay cannot look after old rows", error_code=error.error_code)
            continue
        if RetentionStep.EMPTIED in steps:
            _log.info("relay removed old SENT rows", steps=steps)
        elif steps:
            _log.debug("relay looked after old rows", steps=steps)
