"""A PGN file in a request: its bytes, a form with the file, or JSON."""

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
"""Of a request with a file."""
#: What browsers and chess programs call it; the first is registered (IANA).
_PGN_TYPES: Final = ("application/vnd.chess-pgn", "application/x-chess-pgn", "text/plain")
_WANTED: Final = f"one of {', '.join(_PGN_TYPES)}, multipart/form-data or application/json, not compressed"
_UNTITLED: Final = "Imported games"
_TITLE_CHARS_MAX: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A file as it was sent, and where it is to go."""

    #: As it was sent: which characters they are is found out by whoever reads it.
    data: bytes
    title: str = _UNTITLED
    parent_id: UUID | None = None


async def read_upload(request: Request, model: type[Fields], query: Mapping[str, Any]) -> Upload:
    """Read the file that *request* brings, and the fields of *model* beside it.

    Args:
        request: Its body is the file, a form or JSON.
        model: The fields that a form or JSON may have.
        query: The fields that stand in the query, checked.

    Raises:
        UnsupportedMediaType: it is declared as something else, or compressed.
        BodyTooLarge: the body has more than `PGN_BYTES_MAX`.
        FormMalformed: it is no form, or one without a file.
        ValidationFailed: a field is not what it must be, or is in the body and in the query.
        HttpError: see :func:`relaybox.http.read_json`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        body = await read_model(request, model, PGN_BYTES_MAX)
        return _upload(body.pgn.encode(), _merged(body, query))
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(_WANTED)
    if media_type == "multipart/form-data":
        data = await read_bytes(request, PGN_BYTES_MAX)
        # Aside: a form with little in it and many boundaries takes long.
        form = await asyncio.to_thread(read_form, data, request.headers["content-type"])
        return _upload(form.file, _merged(_placed(model, form.fields), query), form.file_name)
    if media_type not in _PGN_TYPES:
        raise UnsupportedMediaType(_WANTED)
    return _upload(await read_bytes(request, PGN_BYTES_MAX), _merged(model(pgn=""), query))


def _placed(model: type[Fields], fields: Mapping[str, str]) -> Fields:
    """The fields of a form beside the file, which are text."""
    if nul := [name for name, value in fields.items() if "\0" in value]:
        message = "NUL cannot be stored"
        raise ValidationFailed([Detail(field=f"body.{name}", message=message) for name in nul])
    try:
        return model.model_validate({**fields, "pgn": ""})
    except ValidationError as error:
        raise ValidationFailed(validation_details(error)) from None


def _merged(body: Fields, query: Mapping[str, Any]) -> Fields:
    """Return *body* with the fields that stand in the query instead.

    Raises:
        ValidationFailed: A field is in both: none of them is preferred silently.
    """
    if twice := sorted(query.keys() & body.model_fields_set):
        message = "also in the body; give it once"
        raise ValidationFailed([Detail(field=f"query.{name}", message=message) for name in twice])
    return body.model_copy(update=query)


def _upload(data: bytes, placed: ImportPgn | ImportIntoStudy, file_name: str | None = None) -> Upload:
    if isinstance(placed, ImportIntoStudy):
        return Upload(data=data)
    title = placed.title or _title_of(file_name) or _UNTITLED
    return Upload(data=data, title=title, parent_id=placed.parent_id)


def _title_of(file_name: str | None) -> str:
    """A file's name without its directory and its ending, as a title."""
    name = UNPRINTABLE.sub(" ", file_name or "").replace("\\", "/").rpartition("/")[2].strip()
    return name.removesuffix(".pgn").removesuffix(".PGN").strip()[:_TITLE_CHARS_MAX]


def pgn_body(model: type[BaseModel]) -> dict[str, Any]:
    """Document a route's body: ``openapi_extra=pgn_body(ImportPgn)``."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    fields = {name: one for name, one in schema["properties"].items() if name != "pgn"}
    form = {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, **fields},
        "required": ["file"],
    }
    text = {"schema": {"type": "string", "description": "The file, in any of its encodings"}}
    content = {
        "application/json": {"schema": schema},
        "multipart/form-data": {"schema": form},
        **dict.fromkeys(_PGN_TYPES, text),
    }
    return {"requestBody": {"required": True, "content": content}}
