"""Read named queries from the ``.sql`` files beside the modules that execute them."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

__all__ = ("Queries", "load_queries")

_NAME: Final = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)
_INCLUDE: Final = re.compile(r"^[ \t]*-- include: (\w+)[ \t]*$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The named queries of one file; ``queries["claim_lanes"]`` is the text of a statement.

    A statement may contain a placeholder line ``-- include: name``; :meth:`including` replaces the line with
    another named query, such as the application's part of a statement of the library. Values are never put
    into the text: they are parameters (``$1``).
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
        """Return the query *name* with its placeholders replaced.

        Args:
            name: Name of the query.
            parts: The SQL for each placeholder, by the name of the placeholder.

        Raises:
            KeyError: The query or the part for a placeholder is missing.
        """
        text = self[name]
        for placeholder in _INCLUDE.findall(text):
            if placeholder not in parts:
                raise KeyError(
                    f"query {name!r} in {self._source} has the placeholder {placeholder!r}; pass its SQL: "
                    f"including({name!r}, {placeholder}=...)"
                )
        return _INCLUDE.sub(lambda match: parts[match[1]], text)


def load_queries(package: str, file: str) -> Queries:
    """Read the named queries of *file* in *package*; modules call this once, at import.

    A query begins after the line ``-- name: x`` and ends before the next such line. Comments stay in the
    text: ``pg_stat_activity`` shows them.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has text before its first name, or a duplicate name.
    """
    text = (files(package) / file).read_text(encoding="utf-8")
    source = f"{package}:{file}"
    head, *parts = _NAME.split(text)
    if head.strip():
        raise ValueError(f"{source} has text before the first '-- name:'; name the query or remove the text")
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{source}: duplicate query name among {', '.join(names)}; rename one of them")
    return Queries(source, {name: body.strip().rstrip(";") for name, body in zip(names, bodies, strict=True)})
