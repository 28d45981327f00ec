"""Refuse undeclared and repeated query parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from fastapi.security import APIKeyQuery
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from starlette.requests import Request
from starlette.routing import BaseRoute

from relaybox.errors import Detail
from relaybox.http._errors import ValidationFailed

__all__ = ("refuse_undeclared_query",)

_REQUEST: Final = "relaybox_request"
_DETAILS_MAX: Final = 20
#: Error bodies do not contain longer names, because such a name may be a secret.
_NAME_CHARS_MAX: Final = 32


@dataclass(kw_only=True, slots=True)
class _Declared:
    """The query parameters that an operation declares."""

    #: For each declared parameter, by name, whether a request may contain it several times.
    repeatable: dict[str, bool] = field(default_factory=dict[str, bool])
    #: Whether other parameters are accepted too, as by a model with ``extra="allow"``.
    is_open: bool = False

    def check(self, request: Request) -> None:
        """Check the query of *request*.

        Raises:
            ValidationFailed: A parameter is not declared, or is repeated although it may be given only once.
                The details name up to 20 such parameters, without their values.
        """
        given: dict[str, int] = {}
        for name, _ in request.query_params.multi_items():
            given[name] = given.get(name, 0) + 1
        details = [
            Detail(field=_place_of(name), message=message)
            for name, count in given.items()
            if (message := self._problem(name, count)) is not None
        ]
        if details:
            raise ValidationFailed(details[:_DETAILS_MAX])

    def _problem(self, name: str, count: int) -> str | None:
        if name not in self.repeatable:
            return None if self.is_open else f"not a parameter of this operation, {self._accepted()}"
        return f"given {count} times; give it once" if count > 1 and not self.repeatable[name] else None

    def _accepted(self) -> str:
        names = ", ".join(sorted(self.repeatable))
        return f"which accepts {names}" if names else "which accepts none"


def refuse_undeclared_query(routes: Iterable[BaseRoute]) -> None:
    """Make each documented operation of *routes* refuse query parameters that it does not declare.

    The check runs after the dependencies, which include authentication, and before the endpoint. Routes with
    ``include_in_schema=False`` (health, metrics, documentation) and routes of Starlette are not checked.

    Call it once, after all routes are added.
    """
    for operation in _operations(routes):
        if operation.include_in_schema:
            _check_before(operation.dependant, _declared_by(operation))


def _operations(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Yield an object with ``dependant`` and ``include_in_schema`` for each route of FastAPI."""
    for route in routes:
        # Since about version 0.140 FastAPI keeps an included router as one route, which has an operation for
        # each of its routes; before, FastAPI copied the routes.
        included: Any = getattr(route, "effective_route_contexts", None)
        for one in [route] if included is None else included():
            # A route of Starlette or a WebSocket has no dependant.
            if getattr(one, "dependant", None) is not None and hasattr(one, "openapi_extra"):
                yield one


def _check_before(dependant: Any, declared: _Declared) -> None:
    endpoint: Callable[..., Any] = dependant.call
    is_declared: bool = dependant.request_param_name is not None
    name: str = dependant.request_param_name or _REQUEST

    # Not "async", because it returns what the endpoint returns: a coroutine, a generator or a value.
    @wraps(endpoint)
    def checked(**values: Any) -> Any:
        request: Request = values[name] if is_declared else values.pop(name)
        if request.scope["query_string"]:
            declared.check(request)
        return endpoint(**values)

    dependant.request_param_name = name
    dependant.call = checked


def _declared_by(operation: Any) -> _Declared:
    declared = _Declared()
    waiting: list[Any] = [operation.dependant]
    while waiting:
        dependant = waiting.pop()
        waiting.extend(dependant.dependencies)
        for one in dependant.query_params:
            _add(declared, one)
        if isinstance(dependant.call, APIKeyQuery):
            declared.repeatable[dependant.call.model.name] = False
    # Parameters that the route documents in openapi_extra, and reads from request.query_params.
    extra: Mapping[str, Any] = operation.openapi_extra or {}
    for documented in extra.get("parameters", ()):
        if documented.get("in") == "query":
            is_list = documented.get("schema", {}).get("type") == "array"
            declared.repeatable[documented["name"]] = is_list
    return declared


def _add(declared: _Declared, parameter: Any) -> None:
    annotation = parameter.field_info.annotation
    model = _model_in(annotation)
    if model is None:
        names = _names_of(parameter.field_info, parameter.alias)
        declared.repeatable |= dict.fromkeys(names, _takes_several(annotation))
        return
    # A parameter ``Annotated[Model, Query()]`` declares one query parameter per field of the model.
    for name, info in model.model_fields.items():
        declared.repeatable |= dict.fromkeys(_names_of(info, name), _takes_several(info.annotation))
    declared.is_open |= model.model_config.get("extra") == "allow"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the Pydantic model in *annotation*, which may be ``Model | None``; None if there is none."""
    if get_origin(annotation) in (Union, UnionType):
        found = [one for one in map(_model_in, get_args(annotation)) if one is not None]
        return found[0] if found else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _names_of(info: FieldInfo, name: str) -> list[str]:
    alias = info.validation_alias or info.alias or name
    if isinstance(alias, AliasChoices):
        return [one for one in alias.choices if isinstance(one, str)]
    return [alias if isinstance(alias, str) else name]


def _takes_several(annotation: Any) -> bool:
    """Return whether *annotation* is a list, a set or a tuple, also in ``Annotated`` or in a union."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _takes_several(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(_takes_several(one) for one in get_args(annotation))
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(kind, Sequence | Set) and not issubclass(kind, str | bytes)


def _place_of(name: str) -> str:
    is_name = len(name) <= _NAME_CHARS_MAX and name.isprintable() and name
    return f"query.{name}" if is_name else "query"
