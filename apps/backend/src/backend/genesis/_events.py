"""The domain of genesis sessions and its events."""

from typing import Final

from relaybox.commands import Domain, SnapshotQueries
from relaybox.db import load_queries
from relaybox_types.naming import check_event_name
from shared_types.events import EventTarget

from backend.genesis._state import NAME, GenesisSession
from backend.genesis._upcasters import created_from_v1

__all__ = (
    "CONCEPT_GENERATION_FAILED",
    "CONCEPT_GENERATION_REQUESTED",
    "CONCEPT_PROPOSED",
    "CREATED",
    "FEEDBACK_SUBMITTED",
    "FINISHED",
    "GUIDED_RUN_CREATED",
    "GUIDED_RUN_FAILED",
    "GUIDED_RUN_FINISHED",
    "GUIDED_RUN_REQUESTED",
    "GUIDED_RUN_UPDATED",
    "SQL",
    "STAGE_CONFIRMED",
    "STAGE_PROPOSAL_FAILED",
    "STAGE_PROPOSAL_REQUESTED",
    "STAGE_PROPOSED",
    "UPDATED",
    "genesis",
)

SQL: Final = load_queries(__package__ or "backend.genesis", "session.sql")

genesis: Final = Domain(
    NAME,
    aggregate=GenesisSession,
    aggregate_type="GENESIS_SESSION",
    target_type=EventTarget.GENESIS_SESSION,
    snapshots=SnapshotQueries.from_mapping(SQL),
    # Event names must end in an OfficialVerb.
    naming=check_event_name,
)

CREATED: Final = genesis.event("Created", version=2, upcast={1: created_from_v1})
CONCEPT_GENERATION_REQUESTED: Final = genesis.event("ConceptGenerationRequested")
CONCEPT_PROPOSED: Final = genesis.event("ConceptProposed")
CONCEPT_GENERATION_FAILED: Final = genesis.event("ConceptGenerationFailed")
STAGE_PROPOSAL_REQUESTED: Final = genesis.event("StageProposalRequested")
STAGE_PROPOSED: Final = genesis.event("StageProposed")
STAGE_PROPOSAL_FAILED: Final = genesis.event("StageProposalFailed")
FEEDBACK_SUBMITTED: Final = genesis.event("FeedbackSubmitted")
STAGE_CONFIRMED: Final = genesis.event("StageConfirmed")
FINISHED: Final = genesis.event("Finished")
UPDATED: Final = genesis.event("Updated")
GUIDED_RUN_REQUESTED: Final = genesis.event("GuidedRunRequested")
GUIDED_RUN_CREATED: Final = genesis.event("GuidedRunCreated")
GUIDED_RUN_UPDATED: Final = genesis.event("GuidedRunUpdated")
GUIDED_RUN_FINISHED: Final = genesis.event("GuidedRunFinished")
GUIDED_RUN_FAILED: Final = genesis.event("GuidedRunFailed")
