"""Read a PGN file from the body of a request: the bytes of the file, a form with the file, or JSON."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from relaybox.errors import Detail
from relaybox.http import UnsupportedMediaType, ValidationFailed, read_bytes, read_model, validation_details
from shared_types.workspace_api import UNPRINTABLE
from shared_types.workspace_pgn_api import ImportIntoStudy, ImportPgn
from starlette.requests import Request

from backend.workspace.pgn._form import read_form

__all__ = ("PGN_BYTES_MAX", "Upload", "pgn_body", "read_upload")

Fields = TypeVar("Fields", ImportPgn, ImportIntoStudy)

PGN_BYTES_MAX: Final = 20 * 1024 * 1024
"""Maximum bytes of the body of a request with a file."""
#: Media types that browsers and chess programs send for PGN; only the first is registered (IANA).
_PGN_TYPES: Final = ("application/vnd.chess-pgn", "application/x-chess-pgn", "text/plain")
_WANTED: Final = f"one of {', '.join(_PGN_TYPES)}, multipart/form-data or application/json, not compressed"
_UNTITLED: Final = "Imported games"
_TITLE_CHARS_MAX: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A received file, and title and parent of the nodes that the import creates."""

    #: The bytes of the file; the parser detects their encoding.
    data: bytes
    title: str = _UNTITLED
    parent_id: UUID | None = None


async def read_upload(request: Request, model: type[Fields], query: Mapping[str, Any]) -> Upload:
    """Read the file in a request, and the fields that accompany it.

    Args:
        request: The request; its body is the file, a form with the file, or JSON.
        model: The fields that the form or the JSON may have.
        query: The validated fields of the query string.

    Raises:
        UnsupportedMediaType: The body has another media type, or is compressed.
        BodyTooLarge: The body has more than `PGN_BYTES_MAX`.
        FormMalformed: The body is not a form with one file.
        ValidationFailed: A field is invalid, or is in the body and in the query.
        HttpError: See :func:`relaybox.http.read_json`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        body = await read_model(request, model, PGN_BYTES_MAX)
        return _upload(body.pgn.encode(), _with_query_fields(body, query))
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(_WANTED)
    if media_type == "multipart/form-data":
        data = await read_bytes(request, PGN_BYTES_MAX)
        # In a thread: even a small form takes long if it has many boundaries.
        form = await asyncio.to_thread(read_form, data, request.headers["content-type"])
        return _upload(
            form.file, _with_query_fields(_validate_fields(model, form.fields), query), form.file_name
        )
    if media_type not in _PGN_TYPES:
        raise UnsupportedMediaType(_WANTED)
    return _upload(await read_bytes(request, PGN_BYTES_MAX), _with_query_fields(model(pgn=""), query))


def _validate_fields(model: type[Fields], fields: Mapping[str, str]) -> Fields:
    """Validate the text fields of a form."""
    if nul := [name for name, value in fields.items() if "\0" in value]:
        message = "contains the NUL character (U+0000), which cannot be stored; remove it"
        raise ValidationFailed([Detail(field=f"body.{name}", message=message) for name in nul])
    try:
        return model.model_validate({**fields, "pgn": ""})
    except ValidationError as error:
        raise ValidationFailed(validation_details(error)) from None


def _with_query_fields(body: Fields, query: Mapping[str, Any]) -> Fields:
    """Return *body* with the fields of the query.

    Raises:
        ValidationFailed: A field is in both the body and the query.
    """
    if twice := sorted(query.keys() & body.model_fields_set):
        message = "is in the query and in the body; send it in one of them"
        raise ValidationFailed([Detail(field=f"query.{name}", message=message) for name in twice])
    return body.model_copy(update=query)


def _upload(data: bytes, fields: ImportPgn | ImportIntoStudy, file_name: str | None = None) -> Upload:
    if isinstance(fields, ImportIntoStudy):
        return Upload(data=data)
    title = fields.title or _title_of(file_name) or _UNTITLED
    return Upload(data=data, title=title, parent_id=fields.parent_id)


def _title_of(file_name: str | None) -> str:
    """Return a title from the name of a file: the name without directory and extension."""
    name = UNPRINTABLE.sub(" ", file_name or "").replace("\\", "/").rpartition("/")[2].strip()
    return name.removesuffix(".pgn").removesuffix(".PGN").strip()[:_TITLE_CHARS_MAX]


def pgn_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the argument ``openapi_extra`` of a route that calls :func:`read_upload` with *model*."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    fields = {name: one for name, one in schema["properties"].items() if name != "pgn"}
    form = {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, **fields},
        "required": ["file"],
    }
    text = {"schema": {"type": "string", "description": "The file, in UTF-8, UTF-16 or Windows-1252"}}
    content = {
        "application/json": {"schema": schema},
        "multipart/form-data": {"schema": form},
        **dict.fromkeys(_PGN_TYPES, text),
    }
    return {"requestBody": {"required": True, "content": content}}
