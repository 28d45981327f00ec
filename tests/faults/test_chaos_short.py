"""Run `make chaos` for half a minute with a schedule of most kinds of faults."""

import asyncio
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic_core import from_json
from relaybox.settings import RelaySettings

ROOT = Path(__file__).parents[2]
#: Two relay kills, a relay stopped, a broker kill, a crash of PostgreSQL, backends ended, both links hit,
#: three poison rows; a consumer killed, one frozen past its session, keys that fail in consumers for 16 s.
SEED, MINUTES = "4720", "0.55"
DELIVERY = RelaySettings.model_fields["delivery"]
#: On a cluster: two relay kills, a relay freeze, a broker kill, a broker freeze, a kill of PgBouncer, and the
#: promotion of a standby that lagged by 5 s.
CLUSTER_SEED, CLUSTER_MINUTES = "31137", "0.6"
OTHERS = [each for each in get_args(DELIVERY.annotation) if each != DELIVERY.default]


async def chaos(*options: str) -> dict[str, Any]:
    """Run faults and return the report, which must have no violation."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.chaos", *options, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
    text = output.decode()
    assert process.returncode == 0, text
    return from_json(text.splitlines()[-1])


@pytest.mark.guarantee("G20", "G21", "G40", "G42")
async def test_exactly_once_under_faults_loses_and_reorders_nothing() -> None:
    account = await chaos("--seed", SEED, "--minutes", MINUTES)
    assert account["relay_kills"] == 2
    assert (account["broker_faults"], account["postgres_crashes"]) == (1, 1)
    assert account["on_topic"] == account["committed"] - account["poison"] > 0
    assert (account["lost"], account["reordered"], account["violations"]) == (0, 0, {})
    assert (account["consumer_kills"], account["consumer_freezes"]) == (1, 1)
    consumers = account["consumers"]
    assert consumers["effects"] == consumers["expected"] > 0
    assert (consumers["lost"], consumers["doubled"], consumers["reordered"]) == (0, 0, 0)


@pytest.mark.guarantee("G20", "G21")
@pytest.mark.long
@pytest.mark.parametrize("delivery", OTHERS)
async def test_at_least_once_under_faults_loses_and_reorders_nothing(
    delivery: str,
) -> None:
    account = await chaos("--seed", SEED, "--minutes", MINUTES, "--delivery", delivery)
    assert (account["lost"], account["reordered"], account["violations"]) == (0, 0, {})


@pytest.mark.guarantee("G35")
@pytest.mark.usefixtures("pgbouncer_programs")
async def test_cluster_under_faults_loses_and_reorders_nothing() -> None:
    account = await chaos("--cluster", "--seed", CLUSTER_SEED, "--minutes", CLUSTER_MINUTES)
    assert account["by_kind"]["lagging standby promoted"] == 1
    assert account["lost_by_postgres"] > 0
    assert account["on_topic"] == account["committed"] > 0
    assert (account["lost"], account["reordered"], account["violations"]) == (0, 0, {})
