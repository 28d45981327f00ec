"""Generated keys of requests whose body is a form."""

import httpx2 as httpx


async def test_generated_key_of_a_form_depends_on_fields_and_files(ann: httpx.AsyncClient) -> None:
    async def send(article: str, picture: bytes) -> httpx.Response:
        files = {"picture": ("a.png", picture, "image/png")}
        return await ann.post("/auto-form", data={"article": article}, files=files)

    # The boundary between the parts differs in each request.
    first, again = await send("tea", b"1"), await send("tea", b"1")
    assert first.status_code == 201
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    for other in (await send("milk", b"1"), await send("tea", b"2")):
        assert other.json() != first.json()
