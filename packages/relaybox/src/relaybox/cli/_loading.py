"""Import an object that an application declares, such as a flow, by its name on the command line."""

import sys
from importlib import import_module
from typing import TypeVar

import typer

__all__ = ("load_declared",)

T = TypeVar("T")


def load_declared(name: str, kind: type[T], decorator: str) -> T:
    """Import a module, which may be in the working directory, and return an object in the module.

    Args:
        name: Name of the module and of the object: ``module:name``.
        kind: Class that the object must have.
        decorator: The decorator that declares such objects, such as ``@flow``; part of the error messages.

    Raises:
        BadParameter: *name* is malformed, there is no such module or object, or the object is not a *kind*;
            typer exits with code 2.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise _invalid(f"{name!r} does not name an object in a module; write module:name")
    if module.endswith(".py"):
        raise _invalid(f"write the module's name, not its file: {module.removesuffix('.py')}:{attribute}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        declaring = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise _invalid(
            f"there is no module {error.name}; run the command in the directory that contains it"
        ) from None
    if not hasattr(declaring, attribute):
        raise _invalid(f"{module} has no {attribute}; write the name of a function declared with {decorator}")
    found = getattr(declaring, attribute)
    if not isinstance(found, kind):
        raise _invalid(f"{name} is not declared with {decorator}; decorate the function, or name another")
    return found


def _invalid(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="MODULE:NAME")
