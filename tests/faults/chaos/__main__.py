"""``python -m tests.faults.chaos``: one run and its report; exit code 1 on a violation."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import get_args

from pydantic_core import to_json
from relaybox.settings import RelaySettings
from rich.console import Console

from tests.faults.chaos._cluster import start_cluster
from tests.faults.chaos._evidence import keep_evidence
from tests.faults.chaos._report import LIMITATIONS, print_report
from tests.faults.chaos._run import RELAYS, Plan, run
from tests.faults.chaos._servers import start_single_servers

_SEED_MAX = 2**31


def main() -> int:
    """Run with the arguments; return 0 if every guarantee held."""
    known = RelaySettings.model_fields["delivery"]
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.chaos",
        description="Run relays and consumers under faults and check the guarantees.",
        epilog=LIMITATIONS,
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="duration of the faults in minutes (2)")
    parser.add_argument("--seed", type=int, help="seed of the fault schedule to replay (random)")
    parser.add_argument("--delivery", choices=get_args(known.annotation), default=known.default)
    parser.add_argument(
        "--cluster", action="store_true", help="three brokers, a primary with a standby, PgBouncer"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and data even without a violation")
    arguments = parser.parse_args()
    seed = random.randrange(_SEED_MAX) if arguments.seed is None else arguments.seed
    console = Console(highlight=False)
    plan = Plan(seed=seed, minutes=arguments.minutes, delivery=arguments.delivery, on_progress=console.print)
    console.print(f"Seed {seed}: {RELAYS} relays, {plan.delivery}, {plan.minutes:g} minutes of faults")
    directory = Path(tempfile.mkdtemp(prefix="relaybox-chaos-"))
    directory.chmod(0o711)  # as root, PostgreSQL runs under another account, which needs access
    return asyncio.run(_run(plan, directory, console, cluster=arguments.cluster, keep_always=arguments.keep))


async def _run(plan: Plan, directory: Path, console: Console, *, cluster: bool, keep_always: bool) -> int:
    keep = True
    try:
        async with start_cluster(directory) if cluster else start_single_servers(directory) as servers:
            report = await run(plan, servers)
            print_report(report, console)
            violated = bool(report.violations())
            keep = violated or keep_always
            if violated:
                console.print(f"Evidence: {await keep_evidence(report, servers)}")
    finally:
        if keep:
            console.print(f"Journal, timeline, logs and data: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write(to_json(report.as_json()).decode() + "\n")
    return int(violated)


if __name__ == "__main__":
    sys.exit(main())
