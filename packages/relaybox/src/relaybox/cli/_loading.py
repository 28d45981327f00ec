"""Import what an application declares, by its name on the command line."""

import sys
from importlib import import_module
from typing import TypeVar

import typer

__all__ = ("load_declared",)

T = TypeVar("T")


def load_declared(name: str, kind: type[T], decorator: str) -> T:
    """Import the object *name* (``module:name``), also from the working directory.

    Args:
        name: Name of a module, and of an object in it.
        kind: Class of the object.
        decorator: The decorator that declares such objects, for the error.

    Raises:
        BadParameter: There is no such module, or no such object in it; typer exits with code 2.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = None
    if not isinstance(found, kind):
        raise typer.BadParameter(
            f"{name} is not a function declared with {decorator} in an importable module",
            param_hint="MODULE:NAME",
        )
    return found
