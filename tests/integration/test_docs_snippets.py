"""SQL and Python of README and docs run on a migrated PostgreSQL, as documented."""

import asyncio
import re
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import AsyncMock

import asyncpg
import httpx2 as httpx
import pytest
from backend.migrations import ALL
from pydantic import BaseModel, SecretStr
from relaybox.commands import Aggregate, Caller, CommandRefused, Domain, Events
from relaybox.consumers import EventTransaction, subscribe
from relaybox.db import BACKBONE, Database, Migrations, migrate_up, pending_migrations
from relaybox.errors import SettingsError
from relaybox.events import Event, EventBus
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings
from relaybox.tasks import TaskRunner, TaskSignal
from relaybox.testing import Schedules
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import URL
from sqlalchemy import text as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.event_publishing import new_event, row_counts
from tests.fixtures.processes import server_environment
from tests.unit.test_docs import PAGES, fences, name_of

DOCS = Path(__file__).parents[2] / "docs"
SETUP = DOCS / "how-to/use-your-own-servers.md"
#: Pages with statements for a database of another name; test_docs_cluster.py runs them.
CLUSTER, ROLES = DOCS / "how-to/run-on-a-cluster.md", DOCS / "how-to/roles-and-migrations.md"
#: Pages whose queries run with the role of the services, on a database with the whole schema.
QUERIES = [
    pytest.param(text, id=f"{name_of(page)}:{number}")
    for page in PAGES
    if page not in (SETUP, CLUSTER, ROLES)
    for number, text in enumerate(fences(page, "sql"))
]


@pytest.fixture(scope="session")
def migrations() -> tuple[Migrations, ...]:
    return ALL


@pytest.mark.parametrize("text", QUERIES)
async def test_queries_of_the_docs_run_as_role_of_services(database: Database, text: str) -> None:
    async with database.connection() as connection:
        await connection.fetch(text.rstrip("; \n"))


async def test_roles_and_database_of_the_docs_are_sufficient(
    postgres_server: LocalPostgres,
) -> None:
    [text] = fences(SETUP, "sql")
    mark = uuid.uuid4().hex[:8]
    for name in ("relaybox_owner", "infinite_scribe", "relaybox"):
        text = re.sub(rf"\b{name}\b", f"{name}_{mark}", text)
    superuser = await asyncpg.connect(
        host=postgres_server.host,
        port=postgres_server.port,
        user=postgres_server.superuser,
        password=postgres_server.superuser_password,
        database="postgres",
    )
    for statement in text.split(";")[:-1]:
        await superuser.execute(statement)
    settings = PostgresSettings(
        host=postgres_server.host,
        port=postgres_server.port,
        db=f"infinite_scribe_{mark}",
        user=f"relaybox_{mark}",
        password=SecretStr("choose another"),
        owner_user=f"relaybox_owner_{mark}",
        owner_password=SecretStr("choose one"),
    )
    await migrate_up(settings, *ALL)
    database = Database(settings)
    assert await pending_migrations(database, *ALL) == []
    await database.close()
    await superuser.execute(f"DROP DATABASE {settings.db} WITH (FORCE)")
    await superuser.execute(f"DROP ROLE {settings.user}, {settings.owner_user}")
    await superuser.close()


async def test_adoption_page_adopts_the_outbox(database: Database) -> None:
    text, *_ = fences(DOCS / "how-to/adopt-the-outbox.md", "python")
    names: dict[str, Any] = {}
    exec(compile(text, "page", "exec", dont_inherit=True), names)
    async with database.sessions() as db:
        await names["save_invoice_created"](db, uuid.uuid4(), "2026-1")
        await db.commit()
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT payload -> 'payload' ->> 'number' AS number FROM event_outbox")
    assert row["number"] == "2026-1"


@pytest.fixture
def adopting(postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that the first two blocks of the page define, run on the database of the test."""
    for name, value in server_environment(postgres_settings).items():
        monkeypatch.setenv(name, value)
    at, password = postgres_settings, postgres_settings.password.get_secret_value()
    monkeypatch.setenv(
        "DATABASE_URL", f"postgresql+asyncpg://{at.user}:{password}@{at.host}:{at.port}/{at.db}"
    )
    names: dict[str, Any] = {}
    event, app, _ = fences(DOCS / "how-to/adopt-the-outbox.md", "python")
    for text in (event, app):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    return names


async def test_adoption_page_notifies_after_a_commit(
    adopting: dict[str, Any], superuser: asyncpg.Connection
) -> None:
    notified = asyncio.Queue[str]()
    await superuser.add_listener("relaybox_outbox", lambda *words: notified.put_nowait(str(words[-1])))
    invoice, app = uuid.uuid4(), adopting["app"]
    async with app.router.lifespan_context(app):
        async with adopting["sessions"].begin() as db:
            await adopting["save_invoice_created"](db, invoice, "2026-1")
        async with asyncio.timeout(WAIT_S):
            assert await notified.get() == str(invoice)
    await adopting["sessions"].kw["bind"].dispose()


async def test_adoption_page_refuses_large_events(
    adopting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = adopting["app"]

    @app.post("/invoices")
    async def create(number: str) -> None:
        async with adopting["sessions"].begin() as db:
            await adopting["save_invoice_created"](db, uuid.uuid4(), number * 1_000_000)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        refused = await client.post("/invoices?number=1")
    assert (refused.status_code, refused.json()["error_code"]) == (422, "MESSAGE_TOO_LARGE")
    monkeypatch.setenv("OUTBOX_TOPICS", "other")
    with pytest.raises(SettingsError, match="add domain-events"):
        await app.router.lifespan_context(app).__aenter__()
    await adopting["sessions"].kw["bind"].dispose()
    _ = create


async def test_adoption_page_engine_uses_the_schema(
    empty_postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = empty_postgres_settings.model_copy(update={"schema_name": "relaybox"})
    await migrate_up(settings, BACKBONE)
    owner = settings.as_owner()
    url = URL.create(
        "postgresql+asyncpg",
        username=owner.user,
        password=owner.password.get_secret_value(),
        host=owner.host,
        port=owner.port,
        database=owner.db,
    )
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    names: dict[str, Any] = {}
    event, _, engine = fences(DOCS / "how-to/adopt-the-outbox.md", "python")
    for text in (event, engine):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    async with AsyncSession(names["engine"]) as db:
        await db.execute(sql("CREATE TABLE public.event_outbox (LIKE event_outbox INCLUDING ALL)"))
        await names["save_invoice_created"](db, uuid.uuid4(), "2026-1")
        written = sql(
            "SELECT (SELECT count(*) FROM relaybox.event_outbox), (SELECT count(*) FROM public.event_outbox)"
        )
        assert (await db.execute(written)).one() == (1, 0)
    await names["engine"].dispose()


SHELVES = DOCS / "how-to/decide-over-several-rows.md"


@pytest.fixture
async def shelves(database: Database, superuser: asyncpg.Connection) -> list[uuid.UUID]:
    """Create two shelves of the table in the page; the first one has a book."""
    [tables] = fences(SHELVES, "text")
    await superuser.execute(tables)
    ids = [uuid.uuid4() for _ in range(2)]
    rows = [(one, books, 0) for one, books in zip(ids, (1, 0), strict=True)]
    await superuser.executemany("INSERT INTO shelves VALUES ($1, $2, $3)", rows)
    return ids


@pytest.fixture
def shelf_blocks() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for page in (SHELVES, DOCS / "how-to/erase.md"):
        for text in list(fences(page, "python"))[: 3 if page == SHELVES else 1]:
            exec(compile(text, "page", "exec", dont_inherit=True), names)
    return names


async def test_domain_page_moves_a_book(
    database: Database, shelves: list[uuid.UUID], shelf_blocks: dict[str, Any]
) -> None:
    ann, (here, there) = Caller(actor="ann", source_service="library"), shelves

    async def move(db: AsyncSession) -> Any:
        return await shelf_blocks["move_book"](db, here, there, ann, "k")

    command_id = await database.run_in_transaction(move)
    with pytest.raises(IntegrityError, match="shelves_books_check"):
        await database.run_in_transaction(move)
    async with database.connection() as connection:
        facts = await connection.fetch("SELECT aggregate_id, event_type FROM domain_events ORDER BY id")
        [row] = await connection.fetch("SELECT id, status::text, idempotency_key FROM command_inbox")
    assert [tuple(fact.values()) for fact in facts] == [
        (str(here), "shelf.book_taken"),
        (str(there), "shelf.book_placed"),
    ]
    assert tuple(row.values()) == (command_id, "COMPLETED", "k")


async def test_task_page_completes_an_import(
    database: Database, shelves: list[uuid.UUID], shelf_blocks: dict[str, Any]
) -> None:
    runner = TaskRunner(
        database,
        {"shelf.import": shelf_blocks["importing"](database, lambda task: [new_event(version=1)])},
        on_exhausted=AsyncMock(),
        on_signal=lambda signal: runner.stop() if signal is TaskSignal.ENDED else None,
    )
    assert await database.run_in_transaction(
        lambda db: shelf_blocks["take_import"](db, shelves[0], "books.csv")
    )
    await runner.run()
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT (SELECT status::text FROM command_inbox) AS command, status::text FROM async_tasks"
        )
    assert tuple(row.values()) == ("COMPLETED", "COMPLETED")
    assert await row_counts(database) == (1, 1)


async def test_schedule_page_runs_its_report(database: Database, superuser: asyncpg.Connection) -> None:
    page, names = DOCS / "how-to/run-on-a-schedule.md", dict[str, Any]()
    await superuser.execute(next(fences(page, "text")))
    for text in fences(page, "python"):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    await names["test_report_follows_the_clock_of_berlin"](Schedules(database))
    [row] = await superuser.fetch("SELECT day::text, events FROM daily_events")
    assert tuple(row) == ("2026-03-29", 0)


async def test_erasure_page_purges_a_shelf(
    database: Database, shelves: list[uuid.UUID], shelf_blocks: dict[str, Any]
) -> None:
    ann, (here, there) = Caller(actor="ann", source_service="library"), shelves

    async def purge(db: AsyncSession) -> Any:
        await shelf_blocks["move_book"](db, here, there, ann, "k")
        unit = SimpleNamespace(db=db, principal=SimpleNamespace(subject="ann"))
        return await shelf_blocks["purge"](unit, [here])

    done = await database.run_in_transaction(purge, isolation="READ COMMITTED")
    assert (done.events, done.outbox_rows, done.commands) == (1, 1, 1)


async def test_event_page_publishes_an_event_once(database: Database) -> None:
    page = DOCS / "reference/events.md"
    [text] = fences(page, "python")
    names: dict[str, Any] = {}
    exec(compile(text, "page", "exec", dont_inherit=True), names)
    events = [await names["publish_once"](database, new_event()) for _ in range(2)]
    assert events[0] == events[1]
    assert f"`evt_123` becomes `{events[0].event_id}`" in " ".join(page.read_text().split())
    assert await row_counts(database) == (1, 1)


async def test_version_page_reads_orders_of_both_versions(database: Database) -> None:
    names: dict[str, Any] = {}
    for text in fences(DOCS / "how-to/change-an-event.md", "python"):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    names["test_old_orders_are_read_like_new_ones"]()
    old = {"event_version": 1, "payload": {"total": 12.5}, "version": 1}
    new = {"event_version": 2, "payload": {"amount_cents": 99, "currency": "USD"}, "version": 2}
    for changes in (old, new):
        event = new_event(event_type="Shop.Order.Placed", aggregate_type="ORDER", aggregate_id="o", **changes)
        await database.run_in_transaction(lambda db, event=event: EventBus(db).publish(event))
    assert await names["amounts_of"](database, "o") == [1250, 99]
    assert names["amount_of_message"](new_event(event_type="Shop.Order.Placed", **old)) == 1250


class Shop(httpx.AsyncBaseTransport):
    """A server with a script of responses, which then executes each key once.

    For None in the script, the server executes the request and sends no response.
    """

    def __init__(self, *first: httpx.Response | None) -> None:
        self.taken: dict[str, bytes] = {}
        self._first = list(first)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        first = self._first.pop(0) if self._first else httpx.Response(201)
        if first is not None and first.status_code >= 500:
            return first
        key, body = request.headers["Idempotency-Key"], await request.aread()
        replayed = key in self.taken
        if self.taken.setdefault(key, body) != body:
            return httpx.Response(422, json={"error_code": "IDEMPOTENCY_KEY_REUSED"})
        if first is None:
            raise httpx.ReadError("gone", request=request)
        if first.is_error:
            return first
        return httpx.Response(201, headers={"Idempotent-Replayed": "true"} if replayed else {})


def in_trouble() -> tuple[httpx.Response | None, ...]:
    """Return the responses that each loop of the page must handle; None is a lost response."""
    at_once = {"Retry-After": "0"}
    running = httpx.Response(409, headers=at_once, json={"error_code": "REQUEST_IN_FLIGHT"})
    return httpx.Response(503, headers=at_once), None, running


@pytest.fixture
def client_blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that the page for client authors defines, without random waits."""
    monkeypatch.setattr("random.uniform", lambda _least, _most: 0.0)
    monkeypatch.setattr("relaybox.http.client._client.random", lambda: 0.0)
    names: dict[str, Any] = {}
    for text in fences(DOCS / "how-to/send-requests-once.md", "python"):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    return names


async def test_client_page_places_an_order_once(client_blocks: dict[str, Any]) -> None:
    place_order, shop = client_blocks["place_order"], Shop(*in_trouble())
    async with httpx.AsyncClient(transport=shop, base_url="http://shop") as http:
        assert await place_order(http, {"article": "lamp"}, "a") == "done before"
        assert await place_order(http, {"article": "lamp"}, "b") == "done"
        assert "IDEMPOTENCY_KEY_REUSED" in await place_order(http, {"article": "chair"}, "b")
        shop._first += [None] * 8
        assert await place_order(http, {"article": "desk"}, "c") == (
            "unknown after 8 attempts: keep the key and repeat later"
        )
    assert shop.taken.keys() == {'"a"', '"b"', '"c"'}


async def test_client_page_loop_sends_once(client_blocks: dict[str, Any]) -> None:
    send_once, shop = client_blocks["send_once"], Shop(*in_trouble())
    async with httpx.AsyncClient(transport=shop) as http:
        answer = await send_once(http, "http://shop/orders", b"1", "a")
        assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (201, "true")
        assert (await send_once(http, "http://shop/orders", b"2", "a")).status_code == 422
        shop._first += [None] * 8
        with pytest.raises(TimeoutError, match="same key"):
            await send_once(http, "http://shop/orders", b"3", "b")
    assert shop.taken == {'"a"': b"1", '"b"': b"3"}


class Order(Aggregate):
    confirmed: bool = False

    def apply(self, event: Event) -> Self:
        return self


class ConfirmOrder(BaseModel):
    by: str


class AlreadyConfirmed(CommandRefused):
    error_code = "ALREADY_CONFIRMED"


async def test_readme_command_and_consumer_run() -> None:
    text, _ = fences(DOCS.parent / "README.md", "python")
    ours = (AlreadyConfirmed, ConfirmOrder, Domain, EventEnvelope, Order, EventTransaction, subscribe)
    names: dict[str, Any] = {one.__name__: one for one in ours} | {
        "Events": Events,
        "Parcel": SimpleNamespace,
    }
    exec(compile(text, "README", "exec", dont_inherit=True), names)
    order = Order(id=uuid.uuid4(), owner="me")
    [fact] = names["confirm_order"](order, ConfirmOrder(by="me"))
    assert fact.payload == {"by": "me"}
    with pytest.raises(AlreadyConfirmed):
        names["confirm_order"](order.model_copy(update={"confirmed": True}), ConfirmOrder(by="me"))
    assert names["ship"].event_types == frozenset({"Shop.Order.Confirmed"})
    added: list[SimpleNamespace] = []
    unit = SimpleNamespace(db=SimpleNamespace(add=added.append))
    await names["ship"].handler(SimpleNamespace(aggregate_id="1"), unit)
    assert [parcel.order_id for parcel in added] == ["1"]
