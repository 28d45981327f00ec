"""A PGN file in a request: its bytes, a form with the file, or JSON."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from relaybox.errors import Detail
from relaybox.http import UnsupportedMediaType, ValidationFailed, read_bytes, read_model, validation_details
from relaybox_types.workspace_pgn_api import ImportIntoStudy, ImportPgn
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from backend.workspace._edge import PGN_BYTES_MAX
from backend.workspace._pgn_errors import FormMalformed

__all__ = ("Upload", "pgn_body", "read_upload")

Fields = TypeVar("Fields", ImportPgn, ImportIntoStudy)

#: What browsers and chess programs call it; the first is registered (IANA).
_PGN_TYPES: Final = ("application/vnd.chess-pgn", "application/x-chess-pgn", "text/plain")
_WANTED: Final = f"one of {', '.join(_PGN_TYPES)}, multipart/form-data or application/json, not compressed"
_UNTITLED: Final = "Imported games"
_TITLE_CHARS_MAX: Final = 200
_FIELDS_MAX: Final = 4
#: Of a form's body handed on at a time, so that others have their turn in between.
_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A file as it was sent, and where it is to go."""

    #: As it was sent: which characters they are is found out by whoever reads it.
    data: bytes
    title: str = _UNTITLED
    parent_id: UUID | None = None


async def read_upload(request: Request, model: type[Fields]) -> Upload:
    """The file that *request* brings, and the fields of *model* beside it: of the form, else of the query.

    Raises:
        UnsupportedMediaType: it is declared as something else, or compressed.
        BodyTooLarge: the body has more than `PGN_BYTES_MAX`.
        FormMalformed: it is no form, or one without a file.
        ValidationFailed: a field is not what it must be.
        HttpError: see :func:`relaybox.http.read_json`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        body = await read_model(request, model, PGN_BYTES_MAX)
        return _upload(body.pgn.encode(), body)
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(_WANTED)
    if media_type == "multipart/form-data":
        return await _read_form(request, model)
    if media_type not in _PGN_TYPES:
        raise UnsupportedMediaType(_WANTED)
    given = {name: value for name, value in request.query_params.items() if name in model.model_fields}
    placed = _placed(model, given, "query")
    return _upload(await read_bytes(request, PGN_BYTES_MAX), placed)


async def _read_form(request: Request, model: type[Fields]) -> Upload:
    raw = await read_bytes(request, PGN_BYTES_MAX)
    parser = MultiPartParser(request.headers, _pieces(raw), max_files=1, max_fields=_FIELDS_MAX)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise FormMalformed(f"the body is no form with one file: {error.message}") from None
    try:
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        file = next((one for one in form.values() if isinstance(one, UploadFile)), None)
        if file is None or "pgn" in fields:
            raise FormMalformed("the form has no file; send it as a part with a file name")
        return _upload(await file.read(), _placed(model, fields, "body"), file.filename)
    finally:
        await form.close()


async def _pieces(raw: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(raw), _PIECE_BYTES):
        yield raw[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)


def _placed(model: type[Fields], given: Mapping[str, str], within: str) -> Fields:
    """The fields beside the file, which are text."""
    if nul := [name for name, value in given.items() if "\0" in value]:
        message = "NUL cannot be stored"
        raise ValidationFailed([Detail(field=f"{within}.{name}", message=message) for name in nul])
    try:
        return model.model_validate({**given, "pgn": ""})
    except ValidationError as error:
        raise ValidationFailed(validation_details(error, within=within)) from None


def _upload(data: bytes, placed: ImportPgn | ImportIntoStudy, file_name: str | None = None) -> Upload:
    if isinstance(placed, ImportIntoStudy):
        return Upload(data=data)
    title = placed.title or _title_of(file_name) or _UNTITLED
    return Upload(data=data, title=title, parent_id=placed.parent_id)


def _title_of(file_name: str | None) -> str:
    """A file's name without its directory and its ending, as a title."""
    name = (file_name or "").replace("\0", "").replace("\\", "/").rpartition("/")[2].strip()
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
