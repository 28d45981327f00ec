"""The backend without the package chess."""

import re
import subprocess
import sys

from backend.workspace.errors import ChessError, ChessNotInstalled, require_chess
from backend.workspace.errors import _chess as chess_errors

from tests.unit.test_conventions import ROOT, modules

IMPORT = re.compile(r"^\s*(import|from) chess\b", re.MULTILINE)
WITHOUT = """
import sys
sys.modules["chess"] = None  # an import of it fails
import backend.api, backend.workspace.projection, backend.workspace.routes
from backend.workspace.errors import ChessNotInstalled, require_chess
try:
    require_chess()
except ChessNotInstalled as error:
    print(error.error_code, error)
"""


def test_backend_without_chess_starts_and_names_the_package_to_install() -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.startswith("CHESS_NOT_INSTALLED ")
    assert "'./apps/backend[chess]'" in told.stdout


def test_backend_with_chess_logs_nothing() -> None:
    require_chess()


def test_every_reason_has_its_own_code() -> None:
    errors = [
        one
        for one in vars(chess_errors).values()
        if isinstance(one, type) and one.__module__ == chess_errors.__name__
    ]
    codes = [one.error_code for one in errors]
    assert len(set(codes)) == len(codes) == 12
    assert not issubclass(ChessNotInstalled, ChessError)


def test_chess_is_imported_only_in_one_module() -> None:
    elsewhere = [
        str(path.relative_to(ROOT))
        for path in modules("src")
        if IMPORT.search(path.read_text(encoding="utf-8")) and path.parent.name != "chess"
    ]
    assert elsewhere == []
