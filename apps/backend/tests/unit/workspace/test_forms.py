"""Valid and invalid forms with a file."""

import pytest
from backend.workspace.errors import FormMalformed
from backend.workspace.pgn._form import read_form

TYPE = "multipart/form-data; boundary=x"
FILE = b'Content-Disposition: form-data; name="f"; filename="M\xc3\xa4rz.pgn"\r\nX-More: 1\r\n\r\n'
TITLE = b'Content-Disposition: form-data; name="title"\r\n\r\nSpring'


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


def test_form_has_one_file_and_text_fields() -> None:
    read = read_form(form(TITLE, FILE + b"\xff1. e4\r\n*"), TYPE)
    assert (read.fields, read.file_name, read.file) == ({"title": "Spring"}, "März.pgn", b"\xff1. e4\r\n*")


def test_file_may_be_empty_or_contain_text_like_a_boundary() -> None:
    assert read_form(form(FILE), TYPE).file == b""
    assert read_form(form(FILE + b"\r\n--y\r\n--\r\n-x"), TYPE).file == b"\r\n--y\r\n--\r\n-x"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(FILE + b"1. e4", end=b""), TYPE),
        (form(FILE + b"1. e4", end=b"--x"), TYPE),
        (form(TITLE), TYPE),
        (form(), TYPE),
        (form(FILE, FILE), TYPE),
        (form(*[TITLE] * 8, FILE), TYPE),
        (form(FILE, b'Content-Disposition: form-data; name="pgn"\r\n\r\n1. e4'), TYPE),
        (form(b"1. e4"), TYPE),
        (b"1. e4 e5 *", TYPE),
        (b"", TYPE),
        (form(FILE), "multipart/form-data"),
        (form(FILE), "multipart/form-data; boundary="),
        (form(FILE), f"multipart/form-data; boundary={'x' * 300}"),
    ],
)
def test_body_without_a_form_with_one_file_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(FormMalformed):
        read_form(body, content_type)
