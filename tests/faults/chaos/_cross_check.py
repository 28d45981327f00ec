"""Compare the result with `relaybox verify` on the same tables and topic (G33)."""

from relaybox.verify import Kind, verify

from tests.faults.chaos._comparison import TopicFindings
from tests.faults.chaos._servers import TOPIC, ChaosServers


async def verify_difference(servers: ChaosServers, ours: TopicFindings) -> str | None:
    """Return how the product's own verification differs from *ours* (read_committed), or None."""
    report = await verify(servers.settings(), servers.kafka_settings(), topics=[TOPIC])
    theirs = {
        "published": report.published,
        "duplicates": report.duplicates,
        "lost": report.tallies[Kind.LOST].events,
        "not in the database": report.tallies[Kind.NOT_IN_DATABASE].events,
        "unknown": report.tallies[Kind.UNKNOWN].events,
        "reordered": report.tallies[Kind.REORDERED].events > 0,
    }
    judged = {
        "published": ours.events,
        "duplicates": ours.duplicates,
        "lost": ours.findings.counts["lost"],
        "not in the database": ours.published_and_lost,
        "unknown": 0,
        "reordered": ours.findings.counts["reordered"] > 0,
    }
    return None if theirs == judged else f"relaybox verify reports {theirs}, the run's comparison {judged}"
