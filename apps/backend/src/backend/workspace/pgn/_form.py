"""Parse ``multipart/form-data`` with one file (RFC 7578), in memory, as the size of bodies is limited."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from backend.workspace.errors import FormMalformed

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ("Form", "read_form")

_PARTS_MAX: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form with one file."""

    #: The text fields.
    fields: dict[str, str]
    file_name: str
    file: bytes


@dataclass(kw_only=True, slots=True)
class _Part:
    """A part of the form that is being parsed."""

    disposition: bytes = b""
    data: bytearray = field(default_factory=bytearray)


class _Reader:
    """Collects the parts of a form; the methods are callbacks of the library python-multipart."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._header: list[bytes] = []
        self._value: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        """Return the callbacks for the parser of the library."""
        return {
            "on_part_begin": self.on_part_begin,
            "on_header_field": self.on_header_field,
            "on_header_value": self.on_header_value,
            "on_header_end": self.on_header_end,
            "on_part_data": self.on_part_data,
            "on_end": self.on_end,
        }

    def on_part_begin(self) -> None:
        """Start a part.

        Raises:
            FormMalformed: The form has too many parts.
        """
        if len(self.parts) == _PARTS_MAX:
            raise FormMalformed(f"the form has more than {_PARTS_MAX} parts; send one file and its fields")
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Add a piece of a header's name."""
        self._header.append(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Add a piece of a header's value."""
        self._value.append(data[start:end])

    def on_header_end(self) -> None:
        """Finish a header; only Content-Disposition is used."""
        if b"".join(self._header).lower() == b"content-disposition":
            self.parts[-1].disposition = b"".join(self._value)
        self._header, self._value = [], []

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Add a piece of a part's data."""
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        """Record that the form is complete: the parser has found the last boundary."""
        self.ended = True


def read_form(body: bytes, content_type: str) -> Form:
    """Parse a form with one file.

    Raises:
        FormMalformed: The body is not a form, is incomplete, or does not contain exactly one file.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    reader = _Reader()
    try:
        if not boundary:
            raise FormMalformed("the header Content-Type has no boundary; send multipart/form-data with one")
        MultipartParser(boundary, reader.callbacks()).write(body)
    except FormParserError:
        raise FormMalformed(
            "the body is not multipart/form-data; check the boundary in Content-Type"
        ) from None
    if not reader.ended:
        raise FormMalformed("the form is incomplete: its last boundary is missing; send it again")
    return _form(reader.parts)


def _form(parts: list[_Part]) -> Form:
    fields: dict[str, str] = {}
    files: list[tuple[str, bytes]] = []
    for part in parts:
        options = parse_options_header(part.disposition)[1]
        if b"filename" in options:
            files.append((_text(options[b"filename"]), bytes(part.data)))
        else:
            fields[_text(options.get(b"name", b""))] = _text(bytes(part.data))
    if len(files) != 1 or "pgn" in fields:
        raise FormMalformed("the form must contain one file, as a part with a file name")
    [(file_name, file)] = files
    return Form(fields=fields, file_name=file_name, file=file)


def _text(data: bytes) -> str:
    """Decode UTF-8, which browsers send; other bytes are replaced."""
    return data.decode("utf-8", "replace")
