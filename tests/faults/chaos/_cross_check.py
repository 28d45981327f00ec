"""What `relaybox verify` says of the same tables and topic: it must be what the judge says (G33)."""

from relaybox.verify import Kind, verify

from tests.faults.chaos._comparison import TopicFindings
from tests.faults.chaos._servers import TOPIC, ChaosServers


async def verify_difference(servers: ChaosServers, ours: TopicFindings) -> str | None:
    """How the product's own verification differs from *ours*, read as committed; None if it agrees."""
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
    return None if theirs == judged else f"relaybox verify differs: {theirs}, the judge: {judged}"
