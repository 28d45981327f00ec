"""Describe the commands of a domain in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, create_model
from pydantic.json_schema import models_json_schema
from relaybox_types.api import CommandRequest

from relaybox.commands import Domain, Handler
from relaybox.errors import RelayboxError
from relaybox.http._body import json_body
from relaybox.http._error_responses import error_responses

__all__ = ("document_commands",)

_REF: Final = "#/components/schemas/{model}"


def document_commands(
    domain: Domain[Any], responses: dict[int | str, dict[str, Any]], *errors: type[RelayboxError]
) -> dict[str, Any]:
    """Return the argument ``openapi_extra`` of the route that receives the commands of *domain*.

    The documented body has one schema for each command that clients may send; ``command_type`` selects the
    schema. The description of a schema names the error codes with which the command may be refused. If the
    domain declares a command later, the returned object and *responses* are updated.

    Args:
        domain: The domain.
        responses: The argument ``responses`` of the route. This function adds the responses to *errors* and
            to the refusals of all commands.
        errors: Errors that the route may raise, apart from the refusals of the commands.
    """
    extra = json_body(CommandRequest)
    responses |= error_responses(*errors)

    def update() -> None:
        public = [one for one in domain.handlers.values() if not (one.internal or one.creates)]
        if public:
            extra["requestBody"]["content"]["application/json"]["schema"] = _schema_of(public)
        refusals = [refusal for one in public for refusal in one.refuses]
        for status, documented in error_responses(*errors, *refusals).items():
            # Modified in place, because FastAPI has references to these dictionaries.
            responses.setdefault(status, {}).update(documented)

    update()
    domain.on_declaration(update)
    return extra


def _schema_of(handlers: list[Handler[Any]]) -> dict[str, Any]:
    models = [_body_of(one) for one in handlers]
    named, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    bodies = [named[model, "validation"] for model in models]
    mapping = {one.command_type: body["$ref"] for one, body in zip(handlers, bodies, strict=True)}
    return {
        "oneOf": bodies,
        "discriminator": {"propertyName": "command_type", "mapping": mapping},
        "$defs": definitions["$defs"],
    }


def _body_of(handler: Handler[Any]) -> type[BaseModel]:
    """Return the Pydantic model of a request body with the type and the payload of this command."""
    needs_payload = any(field.is_required() for field in handler.model.model_fields.values())
    payload: Any = (handler.model, ...) if needs_payload else (handler.model, {})
    outcome = "200: the command is completed"
    if handler.pending:
        outcome = "202: the command is accepted, and an agent works on it"
    codes = sorted(refusal.error_code for refusal in handler.refuses)
    refused = f" Error codes of refusals: {', '.join(codes)}." if codes else ""
    # The type checker cannot check types that are created at run time.
    fields: dict[str, Any] = {"command_type": (Literal[handler.command_type], ...), "payload": payload}  # pyright: ignore
    name = f"{handler.command_type}Command"
    return create_model(name, __base__=CommandRequest, __doc__=f"Response {outcome}.{refused}", **fields)
