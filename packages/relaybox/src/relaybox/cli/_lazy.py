"""Command groups that import the module of a command only when the command runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from relaybox.cli._errors import ErrorsAsLines

__all__ = ("LazyCommand", "LazyGroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class LazyCommand:
    """The place where a command is defined, and its help text in the list of commands."""

    #: ``package.module:name`` of a ``typer.Typer``, or of a function that is a single command.
    target: str
    help: str


class LazyGroup(ErrorsAsLines):
    """A group that lists commands without importing their modules, for ``typer.Typer(cls=…)``.

    Most of the time that a command line needs to start is spent on importing drivers and frameworks, and
    ``--help`` needs none of them.
    """

    #: Commands of the group by name; a subclass sets them.
    lazy: ClassVar[Mapping[str, LazyCommand]] = MappingProxyType({})

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name, command in self.lazy.items():
            self.commands[name] = TyperCommand(name, help=command.help)
        self._not_loaded = dict(self.lazy)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that ``args[0]`` names, then resolve the arguments as click does."""
        self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> None:
        """Import the command *name* of ``lazy`` and replace its placeholder; do nothing for other names."""
        command = self._not_loaded.pop(name, None)
        if command is None:
            return
        module, _, attribute = command.target.partition(":")
        target: Any = getattr(import_module(module), attribute)
        if isinstance(target, typer.Typer):
            self.commands[name] = get_group(target)
        else:
            single = typer.Typer(add_completion=False)
            single.command(name, help=command.help)(target)
            self.commands[name] = get_command(single)
        self.commands[name].name = name
