"""Why a session refuses a command; each reason has its own ``error_code`` (422 over HTTP).

::

    CommandRefused
    ├── SessionClosed         it is finished or abandoned
    ├── SessionErased         its content was erased
    ├── WrongStage            the command, or the stage it names, is not for the current stage
    ├── ProposalPending       an agent works on a proposal
    ├── NoProposal            nothing has been proposed for the current stage
    ├── ChoiceInvalid         the last proposal has no such option
    ├── StageContentInvalid   the writer's own content is not what the stage must hold
    └── ReportSuperseded      an agent reports on a request that nobody waits for any more
"""

from collections.abc import Sequence
from uuid import UUID

from relaybox.commands import CommandRefused
from relaybox.errors import Detail
from shared_types.genesis import GenesisStage, GenesisStatus

__all__ = (
    "ChoiceInvalid",
    "NoProposal",
    "ProposalPending",
    "ReportSuperseded",
    "SessionClosed",
    "SessionErased",
    "StageContentInvalid",
    "WrongStage",
)


class SessionClosed(CommandRefused):
    """Raised when the session has ended: it takes no command any more."""

    error_code = "SESSION_CLOSED"

    def __init__(self, status: GenesisStatus) -> None:
        super().__init__(f"the session is {status}; create a new one to go on")


class SessionErased(CommandRefused):
    """Raised when the content of the session was erased: it takes no command any more."""

    error_code = "SESSION_ERASED"

    def __init__(self) -> None:
        super().__init__("the content of the session was erased; create a new session")


class WrongStage(CommandRefused):
    """Raised when a command, or the stage it names, does not belong to the current stage."""

    error_code = "WRONG_STAGE"

    def __init__(self, what: str, current: GenesisStage, remedy: str) -> None:
        super().__init__(f"{what}, but the session is in {current}; {remedy}")


class ProposalPending(CommandRefused):
    """Raised while an agent works on a proposal that the command would cross."""

    error_code = "PROPOSAL_PENDING"

    def __init__(self, command_id: UUID) -> None:
        super().__init__(
            f"a proposal is in the making (command {command_id}); wait for it or abandon the session"
        )


class NoProposal(CommandRefused):
    """Raised when a command needs a proposal and the current stage has none."""

    error_code = "NO_PROPOSAL"

    def __init__(self, stage: GenesisStage, remedy: str) -> None:
        super().__init__(f"nothing has been proposed for {stage} yet; {remedy}")


class ChoiceInvalid(CommandRefused):
    """Raised when the chosen option is not among those of the last proposal."""

    error_code = "CHOICE_INVALID"

    def __init__(self, choice: int, options: int) -> None:
        super().__init__(f"option {choice} does not exist; the last proposal has 0 to {options - 1}")


class StageContentInvalid(CommandRefused):
    """Raised when the writer's own content lacks what the stage must hold; ``details`` says where."""

    error_code = "STAGE_CONTENT_INVALID"

    def __init__(self, stage: GenesisStage, details: Sequence[Detail]) -> None:
        self.details = tuple(details)
        problems = "; ".join(f"{one['field']}: {one['message']}" for one in self.details[:3])
        super().__init__(
            f"the content is not what {stage} must hold: {problems}; correct it and send it again"
        )


class ReportSuperseded(CommandRefused):
    """Raised when an agent reports on a request that is settled already or was never made.

    This is what fences an agent that lost its task to another one and wakes up late.
    """

    error_code = "REPORT_SUPERSEDED"

    def __init__(self, command_id: UUID) -> None:
        super().__init__(f"nobody waits for a report on {command_id} any more; drop it")
