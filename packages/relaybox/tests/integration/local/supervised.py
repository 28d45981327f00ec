"""A process with a supervisor: ``supervised.py NAME CODE [NAME CODE]…`` runs Python snippets as parts."""

import asyncio
import os
import sys

from relaybox.local import Part, Start, Supervisor


async def compose(start: Start) -> None:
    arguments = sys.argv[1:]
    for name, code in zip(arguments[::2], arguments[1::2], strict=True):
        argv = [sys.executable, "-u", "-c", code]
        await start(Part(name=name, argv=argv, env={**os.environ}))


if __name__ == "__main__":
    sys.exit(asyncio.run(Supervisor().run(compose)))
