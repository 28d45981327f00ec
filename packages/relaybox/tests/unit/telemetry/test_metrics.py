"""Metrics: bounded labels, one registry per application, all workers in one scrape."""

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from relaybox.telemetry import CommandMetrics, HttpMetrics, exposition


def test_requests_are_counted_by_route_method_and_class_of_status() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    metrics.record_response(route="/a/{id}", method="GET", status=404, duration_s=0.003)
    labels = {"route": "/a/{id}", "method": "GET"}
    assert registry.get_sample_value("relaybox_http_requests_total", labels | {"status_class": "4xx"}) == 1
    bucket = "relaybox_http_request_duration_seconds_bucket"
    assert registry.get_sample_value(bucket, labels | {"le": "0.0025"}) == 0
    assert registry.get_sample_value(bucket, labels | {"le": "0.005"}) == 1


def test_unknown_method_is_counted_without_a_label_of_its_own() -> None:
    registry = CollectorRegistry()
    HttpMetrics(registry).record_response(route="unmatched", method="MADEUP", status=405, duration_s=0)
    assert "MADEUP" not in exposition(registry).decode()


def test_two_applications_in_one_process_have_separate_metrics() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    CommandMetrics(one).record_command(command_type="ConfirmStage", outcome="COMPLETED")
    CommandMetrics(other)
    labels = {"command_type": "ConfirmStage", "outcome": "COMPLETED"}
    assert one.get_sample_value("relaybox_commands_total", labels) == 1
    assert other.get_sample_value("relaybox_commands_total", labels) is None


_WORKER = """
from prometheus_client import CollectorRegistry
from relaybox.telemetry import HttpMetrics, exposition
registry = CollectorRegistry()
HttpMetrics(registry).record_response(route="/a", method="GET", status=200, duration_s=0.1)
print(exposition(registry).decode())
"""


def test_scrape_of_one_worker_shows_all_workers(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", _WORKER], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert 'relaybox_http_requests_total{method="GET",route="/a",status_class="2xx"} 2.0' in texts[1]
