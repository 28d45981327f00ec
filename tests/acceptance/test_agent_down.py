"""A service that cannot run: the other services work, and the product reports which one is down."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeProduct
from tests.fixtures.product import BACKEND, Product, wait_for

AGENT = "concept-agent"


@pytest.fixture
def poisoned(make_product: MakeProduct) -> Iterator[Product]:
    """Start a product whose agent ends at every start: its language model has no name."""
    product = make_product("poisoned", MUSE="llm", MUSE_MODEL="")
    product.start()
    wait_for("a crashing agent", lambda: f"{AGENT} is down" in product.log_text() or None)
    yield product
    product.stop()


def test_product_keeps_running_while_its_agent_is_down(poisoned: Product, behind_pgbouncer: bool) -> None:
    with poisoned.writer() as writer:
        session = writer.create()
        assert writer.command(session, "RequestConceptGeneration").status_code == 202
        with writer.follow(session) as events:
            assert [next(events).type for _ in range(2)][1].endswith("ConceptGenerationRequested")

    told = poisoned.run(BACKEND, "status")
    assert told.returncode == 1, told.stderr
    states = dict(line.split(": ", 1) for line in told.stdout.splitlines())
    assert states.pop(AGENT).endswith("times in a row, ended with exit code 1")
    servers = ("kafka",) if behind_pgbouncer else ("postgres", "kafka")
    assert states == dict.fromkeys((*servers, "api-gateway", "message-relay", "workspace-worker"), "ready")
    listed = [json.loads(line) for line in poisoned.run(BACKEND, "status", "--json").stdout.splitlines()]
    assert [part["name"] for part in listed if part["crashes"]] == [AGENT]

    assert poisoned.stop(signal.SIGINT) == 1
    assert f"{AGENT}: " in poisoned.log_text().rpartition("Stopping everything")[2]
