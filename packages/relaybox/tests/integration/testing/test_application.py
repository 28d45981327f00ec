"""An application that reads its settings from the environment, tested with the fixtures of the kit."""

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpx2 as httpx
import pytest
from relaybox.http import make_token
from relaybox.settings import JwtSettings, KafkaSettings, PostgresSettings
from relaybox.testing import HandlerRunner, PublishedAssertion, SteppedConsumers, SteppedRelay, make_event

_APP = Path(__file__).parents[5] / "examples/orders/app.py"


@pytest.fixture(scope="module")
def orders() -> ModuleType:
    """Return the example application, whose objects exist once per process, as after an import."""
    spec = importlib.util.spec_from_file_location("orders_app", _APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def client(
    orders: ModuleType, relaybox_postgres_environment: object
) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application, and return a client with a token."""
    async with orders.app.router.lifespan_context(orders.app):
        headers = {"Authorization": f"Bearer {make_token(JwtSettings(), 'ann')}"}
        transport = httpx.ASGITransport(orders.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            yield client


async def place(client: httpx.AsyncClient) -> str:
    response = await client.post("/orders", json={"item": "tea", "ordered": 3})
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def test_order_flows_to_the_warehouse_and_back(
    orders: ModuleType,
    client: httpx.AsyncClient,
    relaybox_relay: SteppedRelay,
    relaybox_consumer: SteppedConsumers,
    assert_published: PublishedAssertion,
) -> None:
    order = await place(client)
    assert await relaybox_relay.publish_all() == 1
    await assert_published(orders.CREATED, key=order, payload={"ordered": 3})
    warehouse = relaybox_consumer(orders.reserve)
    assert [one.outcome for one in await warehouse.drain()] == ["HANDLED"]
    assert (await client.get(f"/orders/{order}/state")).json()["reserved"] == 3
    await relaybox_relay.publish_all()
    await assert_published(orders.RESERVED, key=order, payload={"reserved": 3})


async def test_application_of_the_test_before_uses_the_new_database(
    orders: ModuleType, client: httpx.AsyncClient, run_handler: HandlerRunner
) -> None:
    order = await place(client)
    event = make_event(orders.CREATED, {"item": "tea", "ordered": 3}, aggregate_id=order)
    assert [await run_handler(orders.reserve, event) for _ in range(2)] == ["HANDLED", "ALREADY_DONE"]
    assert (await client.get(f"/orders/{order}/state")).json()["version"] == 2


class TestEnvironment:
    """Settings of a running product are hidden from the application."""

    @pytest.fixture(autouse=True)
    def _product(self, monkeypatch: pytest.MonkeyPatch) -> None:
        product = {
            "POSTGRES_HOST": "db.example.com",
            "POSTGRES_SSL_MODE": "verify-full",
            "POSTGRES_TARGET_SESSION_ATTRS": "primary",
            "KAFKA_HOST": "kafka.example.com",
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "JWT_SECRET": "a secret of thirty-two bytes, or more",
        }
        for name, value in product.items():
            monkeypatch.setenv(name, value)

    def test_environment_has_the_servers_of_the_test(
        self,
        relaybox_environment: dict[str, str],
        relaybox_postgres_settings: PostgresSettings,
        relaybox_kafka_settings: KafkaSettings,
    ) -> None:
        assert PostgresSettings() == relaybox_postgres_settings
        assert KafkaSettings() == relaybox_kafka_settings
        assert relaybox_kafka_settings.client_config()["security.protocol"] == "PLAINTEXT"
        assert JwtSettings().secret.get_secret_value().startswith("a secret")
        assert relaybox_environment["KAFKA_HOST"] == relaybox_kafka_settings.host
        assert relaybox_environment["POSTGRES_DB"] == relaybox_postgres_settings.db
