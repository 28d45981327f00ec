"""Commands whose modules are loaded when they run, not when the program starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from relaybox.cli._report import ErrorsAsLines

__all__ = ("LazyCommand", "LazyGroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class LazyCommand:
    """Where a command is defined, and what the list of commands says about it."""

    #: ``package.module:name`` of a ``typer.Typer``, or of a function that is a single command.
    target: str
    help: str


class LazyGroup(ErrorsAsLines):
    """A group that lists commands without loading them, for ``typer.Typer(cls=…)``.

    Drivers and frameworks take most of the time in which a command line starts; ``--help`` needs none
    of them. A subclass names its commands in ``lazy``.
    """

    lazy: ClassVar[Mapping[str, LazyCommand]] = MappingProxyType({})

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name, one in self.lazy.items():
            self.commands[name] = TyperCommand(name, help=one.help)
        self._not_loaded = dict(self.lazy)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that *args* name and return it."""
        self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> None:
        """Replace the entry of the lazy command *name* by the command itself; other names change nothing."""
        one = self._not_loaded.pop(name, None)
        if one is None:
            return
        module, _, attribute = one.target.partition(":")
        found: Any = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            self.commands[name] = get_group(found)
        else:
            single = typer.Typer(add_completion=False)
            single.command(name, help=one.help)(found)
            self.commands[name] = get_command(single)
        self.commands[name].name = name
