"""Run the tutorial's shell blocks in one shell beside the running product."""

import os
import subprocess
import sys
from pathlib import Path

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.marks import needs_curl
from tests.fixtures.product import Product
from tests.unit.test_docs import fences

DOCS = Path(__file__).parents[2] / "docs"
GIVEN = "SESSION_ID=…    # the session_id of the response"
TAKEN = 'SESSION_ID=$(grep -o \'"session_id":"[^"]*\' created | cut -d\'"\' -f4)'
ANSWERED = 'until "${ASK[@]}" "$SESSIONS/$SESSION_ID/state" | grep -q \'"is_pending":false\'; do :; done'


def shell(product: Product, script: str, directory: Path) -> str:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **product.environment}
    ran = subprocess.run(
        ["bash", "-eu"],
        input=script,
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    return ran.stdout


@needs_curl
def test_tutorial_requests_get_the_printed_responses(product: Product, tmp_path: Path) -> None:
    create, ask, look, choose = (
        text for text in fences(DOCS / "tutorial.md", "sh") if "SESSION_ID" in text or "SESSIONS=" in text
    )
    assert GIVEN in ask
    # The shell waits or copies an id where a reader does.
    parts = [
        f"{{ {create}\n}} > created",
        ask.replace(GIVEN, TAKEN),
        ANSWERED,
        f"{look} || true",  # curl ends an endless stream
        choose,
    ]
    told = shell(product, "\n".join(parts), tmp_path)
    assert '"status":"RECEIVED"' in told
    for event in ("Created", "ConceptGenerationRequested", "ConceptProposed"):
        assert f"event: Genesis.Session.{event}\n" in told
    assert '"status":"COMPLETED"' in told.rpartition("ConceptProposed")[2]


@needs_curl
def test_first_study_page_commands_run_as_written(product: Product, tmp_path: Path) -> None:
    settings, *steps = fences(DOCS / "how-to/first-study.md", "sh")
    # The settings of the running product are in this shell's environment already.
    _, found, rest = settings.partition('eval "$(make -s env)"\n')
    assert found
    shown = shell(product, "\n".join([rest, *steps]), tmp_path)
    assert "Spanish" in shown
    assert '"role":"commenter"' in shown
    assert '"error_code"' not in shown
    assert "well known" in shown.rpartition("[Event ")[2]


@needs_curl
def test_shell_with_the_products_settings_reaches_the_api(product: Product, tmp_path: Path) -> None:
    [ask] = [text for text in fences(DOCS / "how-to/run-services-by-hand.md", "sh") if "curl" in text]
    told = shell(
        product, ask.replace("curl -H", "curl -s -H").replace("\nrelaybox", "\necho\nrelaybox"), tmp_path
    )
    page, token = told.splitlines()
    assert page.startswith('{"items":[')
    assert token.count(".") == 2
