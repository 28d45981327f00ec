"""Where the workers of an API add up their figures."""

import os
from pathlib import Path

import pytest
from backend.services import _shared_metrics_directory

NAME = "PROMETHEUS_MULTIPROC_DIR"


def test_a_directory_made_for_the_workers_figures_is_gone_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with _shared_metrics_directory():
        made = Path(os.environ[NAME])
        (made / "counter_1.db").write_bytes(b"figures")
    assert not made.exists()
    assert NAME not in os.environ


def test_a_directory_that_was_given_for_the_workers_figures_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(NAME, str(tmp_path))
    with _shared_metrics_directory():
        assert os.environ[NAME] == str(tmp_path)
    assert tmp_path.exists()
