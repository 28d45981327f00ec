"""What Prometheus sees of a relay."""

import pytest
from prometheus_client import CollectorRegistry
from relaybox.relay import RelayCollector
from relaybox.relay._statistics import Counters, Statistics


def look(counters: Counters) -> Statistics:
    return counters.look(lanes=(0, 1, 2), members=2, in_flight=5, link_up=True)


def test_a_scrape_tells_what_was_published_how_late_and_what_waits() -> None:
    counters = Counters(retried_total=3, failed_total=1, pending=7, retrying=2)
    counters.count_published(bucket=0, rows=2, delay_s=0.004)
    counters.count_published(bucket=6, rows=1, delay_s=0.2)
    registry = CollectorRegistry()
    registry.register(RelayCollector(lambda: look(counters)))
    value = registry.get_sample_value
    assert value("relaybox_relay_published_total") == 3
    assert value("relaybox_relay_retried_total") == 3
    assert value("relaybox_relay_failed_total") == 1
    assert value("relaybox_relay_lanes_owned") == 3
    assert value("relaybox_relay_pending_rows") == 7
    assert value("relaybox_relay_retry_queue_rows") == 2
    assert value("relaybox_relay_publish_latency_seconds_bucket", {"le": "0.0025"}) == 2
    assert value("relaybox_relay_publish_latency_seconds_count") == 3
    assert value("relaybox_relay_publish_latency_seconds_sum") == pytest.approx(0.204)


def test_a_scrape_tells_the_figures_of_now() -> None:
    counters = Counters()
    registry = CollectorRegistry()
    registry.register(RelayCollector(lambda: look(counters)))
    counters.pending = 9
    assert registry.get_sample_value("relaybox_relay_pending_rows") == 9
