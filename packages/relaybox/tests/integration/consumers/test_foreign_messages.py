"""Events that another producer wrote, and that PostgreSQL cannot store as they are."""

import pytest
from confluent_kafka import Producer
from pydantic_core import to_json
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, make_event


async def fail(event: EventEnvelope, unit: EventTransaction) -> None:
    raise RuntimeError


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize("field", ["aggregate_id", "aggregate_type"])
async def test_failed_event_with_nul_in_a_name_is_parked(
    field: str, kafka_settings: KafkaSettings, topic: str, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    document = make_event(aggregate_id="a").model_dump(mode="json") | {field: "a\0b"}
    producer = Producer({**kafka_settings.client_config(), "log_level": 0})
    async with start_consumer(fail) as running:
        producer.produce(topic, to_json(document), b"a", headers=[("ce_type", REQUESTED)])
        assert producer.flush(WAIT_S) == 0
        await running.signals.wait_for(ConsumerSignal.PARKED)
