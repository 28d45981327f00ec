"""The errors with which a session refuses a command (HTTP status 422), each with its own ``error_code``.

::

    CommandRefused
    ├── SessionClosed         the session is finished or abandoned
    ├── SessionErased         the content of the session was erased
    ├── WrongStage            the command, or the stage in the command, does not belong to the current stage
    ├── ProposalPending       an agent works on a proposal
    ├── NoProposal            the current stage has no proposal yet
    ├── ChoiceInvalid         the last proposal has no such option
    ├── StageContentInvalid   the writer's own content is not valid for the stage
    ├── GuidedRunActive       a guided run is active already
    ├── GuidedRunInactive     the guided run to stop or report on is not active
    └── ReportSuperseded      an agent reports on a request that is no longer pending
"""

from collections.abc import Sequence
from uuid import UUID

from relaybox.commands import CommandRefused
from relaybox.errors import Detail
from shared_types.genesis import GenesisStage, GenesisStatus

__all__ = (
    "ChoiceInvalid",
    "GuidedRunActive",
    "GuidedRunInactive",
    "NoProposal",
    "ProposalPending",
    "ReportSuperseded",
    "SessionClosed",
    "SessionErased",
    "StageContentInvalid",
    "WrongStage",
)


class SessionClosed(CommandRefused):
    """Raised when the session is completed or abandoned, and so accepts no more commands."""

    error_code = "SESSION_CLOSED"

    def __init__(self, status: GenesisStatus) -> None:
        super().__init__(f"the session is {status} and accepts no more commands; create a new session")


class SessionErased(CommandRefused):
    """Raised when the content of the session was erased, and the session accepts no more commands."""

    error_code = "SESSION_ERASED"

    def __init__(self) -> None:
        super().__init__("the content of the session was erased; create a new session")


class WrongStage(CommandRefused):
    """Raised when a command, or the stage in its payload, does not belong to the current stage."""

    error_code = "WRONG_STAGE"

    def __init__(self, what: str, current: GenesisStage, remedy: str) -> None:
        """*what*: the rule that the command breaks; *remedy*: what to do instead; both in lower case."""
        super().__init__(f"{what}, but the session is in {current}; {remedy}")


class ProposalPending(CommandRefused):
    """Raised when a command needs a session without a pending request, and an agent works on a proposal."""

    error_code = "PROPOSAL_PENDING"

    def __init__(self, command_id: UUID) -> None:
        super().__init__(
            f"an agent works on a proposal (command {command_id}); wait until the proposal is recorded, "
            "or abandon the session"
        )


class NoProposal(CommandRefused):
    """Raised when a command needs a proposal and the current stage has none."""

    error_code = "NO_PROPOSAL"

    def __init__(self, stage: GenesisStage, remedy: str) -> None:
        """*remedy*: what to do instead, in lower case."""
        super().__init__(f"there is no proposal for {stage} yet; {remedy}")


class ChoiceInvalid(CommandRefused):
    """Raised when the chosen option is not among those of the last proposal."""

    error_code = "CHOICE_INVALID"

    def __init__(self, choice: int, options: int) -> None:
        super().__init__(
            f"option {choice} does not exist; choose an option from 0 to {options - 1} of the last proposal"
        )


class StageContentInvalid(CommandRefused):
    """Raised when the writer's own content is not valid for the stage; ``details`` names the fields."""

    error_code = "STAGE_CONTENT_INVALID"

    def __init__(self, stage: GenesisStage, details: Sequence[Detail]) -> None:
        self.details = tuple(details)
        problems = "; ".join(f"{one['field']}: {one['message']}" for one in self.details[:3])
        super().__init__(f"the content is not valid for {stage}: {problems}; correct these fields")


class GuidedRunActive(CommandRefused):
    """Raised when a guided run is started and another one is active."""

    error_code = "GUIDED_RUN_ACTIVE"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"the guided run {run_id} is active; continue with it, or send StopGuidedRun first")


class GuidedRunInactive(CommandRefused):
    """Raised when a command stops or changes a guided run that has ended or never existed."""

    error_code = "GUIDED_RUN_INACTIVE"

    def __init__(self) -> None:
        super().__init__("no such guided run is active; send StartGuidedRun to begin one")


class ReportSuperseded(CommandRefused):
    """Raised when an agent reports the result of a request that is not pending.

    For example, another agent has taken over the task and reported first, or the writer abandoned the
    session.
    """

    error_code = "REPORT_SUPERSEDED"

    def __init__(self, command_id: UUID) -> None:
        super().__init__(f"the request {command_id} is no longer pending; discard the report")
