"""Send one command; the tests kill this process. Settings and counter id are arguments."""

import asyncio
import sys
from uuid import UUID

from relaybox.commands import CommandService
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings, load_settings

from tests.fixtures.counters import counters, submit


async def main(counter_id: UUID) -> None:
    database = Database(load_settings(PostgresSettings), application_name="committer")
    service = CommandService(database, [counters], notifier=Notifier(database), source_service="suite")
    await submit(service, "Increase", counter_id, steps=3)
    sys.stdout.write("acknowledged")


if __name__ == "__main__":
    asyncio.run(main(UUID(sys.argv[1])))
