"""Several requests that parse files concurrently."""

import asyncio

from backend.workspace.pgn._file_reader import PgnFileReader

_GAMES = b'[Event "one"]\n\n1. e4 e5 2. Nf3 *\n'


def test_more_files_than_threads_are_parsed_one_after_another() -> None:
    reading = PgnFileReader(event_bytes_max=1_000_000)

    async def read_four() -> int:
        results = await asyncio.gather(*(reading.read(_GAMES, strict=True) for _ in range(4)))
        return len(results)

    assert [asyncio.run(read_four()) for _ in range(2)] == [4, 4]
