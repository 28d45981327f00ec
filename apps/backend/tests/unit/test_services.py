"""The directory in which the workers of an API share their metrics."""

import os
from pathlib import Path

import pytest
from backend.services import _shared_metrics_directory

NAME = "PROMETHEUS_MULTIPROC_DIR"


def test_created_metrics_directory_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with _shared_metrics_directory():
        made = Path(os.environ[NAME])
        (made / "counter_1.db").write_bytes(b"figures")
    assert not made.exists()
    assert NAME not in os.environ


def test_given_metrics_directory_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(NAME, str(tmp_path))
    with _shared_metrics_directory():
        assert os.environ[NAME] == str(tmp_path)
    assert tmp_path.exists()
