"""SQL stands in ``.sql`` files beside the module that runs it; this reads them."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

__all__ = ("Queries", "load_queries")

_NAME: Final = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)
_INCLUDE: Final = re.compile(r"^[ \t]*-- include: (\w+)[ \t]*$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The named queries of one file; ``queries["claim_lanes"]`` is the statement's text.

    A statement may leave a place open with a line ``-- include: name``; :meth:`including` puts
    another named query there, as it stands, so that a library's statement and an application's
    part of it are both SQL that can be read and prepared. Nothing else is ever put into a text:
    values travel as ``$1``.
    """

    def __init__(self, source: str, queries: Mapping[str, str]) -> None:
        self._source = source
        self._queries = dict(queries)

    def __getitem__(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise KeyError(
                f"no query {name!r} in {self._source}; it has {', '.join(self._queries)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)

    def including(self, name: str, **parts: str) -> str:
        """The query *name* with every open place filled by the part of that name.

        Raises:
            KeyError: the query or a part it includes is missing.
        """
        return _INCLUDE.sub(lambda place: parts[place[1]], self[name])


def load_queries(package: str, file: str) -> Queries:
    """Read the named queries of *file* in *package*; done once, at import.

    A query begins at ``-- name: x`` and ends where the next begins; comments stay, they help
    whoever reads ``pg_stat_activity``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has text before its first name, or a name twice.
    """
    text = (files(package) / file).read_text(encoding="utf-8")
    source = f"{package}:{file}"
    head, *parts = _NAME.split(text)
    if head.strip():
        raise ValueError(f"{source}: text before the first '-- name:'")
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{source}: a query name stands twice among {', '.join(names)}")
    return Queries(source, {name: body.strip().rstrip(";") for name, body in zip(names, bodies, strict=True)})
