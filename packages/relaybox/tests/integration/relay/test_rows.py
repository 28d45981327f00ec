"""What the relay asks of the outbox."""

from relaybox.db import Database
from relaybox.relay._ask import connected
from relaybox.relay._rows import seconds_until_due

from tests.fixtures.relays import put_events


async def test_g24_a_row_that_became_due_after_the_last_fetch_is_not_slept_over(database: Database) -> None:
    await put_events(database, "domain-events", ["key"])
    async with connected(database) as connection:
        assert await seconds_until_due(connection, fetched_s=60) is None
        await connection.fetch("UPDATE event_outbox SET next_attempt_at = now() - interval '10 s'")
        assert await seconds_until_due(connection, fetched_s=1) is None
        late_s = await seconds_until_due(connection, fetched_s=60)
        assert late_s is not None
        assert late_s <= -10
        await connection.fetch("UPDATE event_outbox SET next_attempt_at = now() + interval '60 s'")
        due_s = await seconds_until_due(connection, fetched_s=1)
        assert due_s is not None
        assert 0 < due_s <= 60
