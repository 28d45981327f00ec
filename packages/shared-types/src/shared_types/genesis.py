"""Define the stages of a Genesis session, the content of each stage, and the payloads of the commands.

A session plans a novel in stages: a muse, such as a language model, proposes the content of a stage, and the
writer confirms it. Each text, list and number has an upper bound, so that the content fits into one event.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from relaybox_types.text import Line, Paragraph, Remark, Word

__all__ = [
    "CONCEPT_OPTIONS",
    "CONTENT_BYTES_MAX",
    "PROPOSAL_OPTIONS_MAX",
    "STAGE_CONTENT",
    "AbandonSession",
    "AnyContent",
    "Chapter",
    "Character",
    "CharacterRole",
    "Characters",
    "Concept",
    "ConfirmStage",
    "Feedback",
    "GenesisStage",
    "GenesisStatus",
    "GuidedRunStatus",
    "Place",
    "PlotOutline",
    "Preferences",
    "Proposal",
    "RequestConceptGeneration",
    "RequestStageProposal",
    "StageContent",
    "StartGuidedRun",
    "StopGuidedRun",
    "StoryConception",
    "SubmitFeedback",
    "Worldview",
]

CONTENT_BYTES_MAX = 131_072
"""Maximum size in bytes of the content of a stage as JSON; five options of this size fit into one event."""

PROPOSAL_OPTIONS_MAX = 5
"""Maximum number of options in a proposal."""

CONCEPT_OPTIONS = 3
"""The number of concepts in a proposal for CONCEPT_SELECTION."""


class GenesisStatus(StrEnum):
    """The status of a session.

    IN_PROGRESS until the last stage is confirmed or the writer abandons the session.
    """

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    ABANDONED = "ABANDONED"


class GenesisStage(StrEnum):
    """The stages in their order; FINISHED follows the confirmation of the last stage, and has no content."""

    CONCEPT_SELECTION = "CONCEPT_SELECTION"
    STORY_CONCEPTION = "STORY_CONCEPTION"
    WORLDVIEW = "WORLDVIEW"
    CHARACTERS = "CHARACTERS"
    PLOT_OUTLINE = "PLOT_OUTLINE"
    FINISHED = "FINISHED"


class GuidedRunStatus(StrEnum):
    """The status of a guided run: active while REQUESTED or RUNNING, ended in the other cases.

    REQUESTED: the run has not begun yet. FINISHED: the last stage was confirmed. STOPPED: the writer stopped
    the run or abandoned the session. EXPIRED: the run took longer than `GENESIS_GUIDED_RUN_H` hours. FAILED:
    three proposals in a row failed, or the run could not be continued because of an error.
    """

    REQUESTED = "REQUESTED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    STOPPED = "STOPPED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"


class _Strict(BaseModel):
    """Base of models that refuse undeclared fields, so that a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class StageContent(_Strict):
    """The content of one stage; as JSON at most `CONTENT_BYTES_MAX` bytes."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        size = len(self.model_dump_json().encode())
        if size > CONTENT_BYTES_MAX:
            raise ValueError(f"takes {size} bytes, more than the {CONTENT_BYTES_MAX} allowed; shorten it")
        return self


class Concept(StageContent):
    """The content of the stage CONCEPT_SELECTION: the idea in a few lines."""

    title: Line
    logline: Paragraph
    hook: Paragraph
    themes: Annotated[tuple[Word, ...], Field(min_length=1, max_length=12)]
    tone: Line


class StoryConception(StageContent):
    """The content of STORY_CONCEPTION: the story from its premise to its ending."""

    premise: Paragraph
    conflict: Paragraph
    stakes: Paragraph
    ending: Paragraph
    perspective: Line


class Place(_Strict):
    """One place of the world."""

    name: Word
    description: Paragraph


class Worldview(StageContent):
    """The content of WORLDVIEW: time, places and rules of the story's world. Names of places are unique."""

    era: Line
    setting: Paragraph
    society: Paragraph
    places: Annotated[tuple[Place, ...], Field(min_length=1, max_length=12)]
    rules: Annotated[tuple[Paragraph, ...], Field(min_length=1, max_length=12)]

    @model_validator(mode="after")
    def _has_distinct_places(self) -> Self:
        _require_distinct_names("places", (place.name for place in self.places))
        return self


class CharacterRole(StrEnum):
    """The role of a character in the story."""

    PROTAGONIST = "PROTAGONIST"
    ANTAGONIST = "ANTAGONIST"
    ALLY = "ALLY"
    MENTOR = "MENTOR"
    SUPPORTING = "SUPPORTING"


class Character(_Strict):
    """One character: description, desire, flaw, and how the character changes."""

    name: Word
    role: CharacterRole
    description: Paragraph
    desire: Paragraph
    flaw: Paragraph
    arc: Paragraph


class Characters(StageContent):
    """The content of CHARACTERS. Names are unique, and at least one character is the PROTAGONIST."""

    characters: Annotated[tuple[Character, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _has_protagonist_and_distinct_names(self) -> Self:
        _require_distinct_names("characters", (character.name for character in self.characters))
        if all(character.role is not CharacterRole.PROTAGONIST for character in self.characters):
            raise ValueError("needs at least one character whose role is PROTAGONIST")
        return self


class Chapter(_Strict):
    """One chapter; `number` counts from 1 through the whole book, `act` is the number of its act."""

    number: Annotated[int, Field(strict=True, ge=1, le=60)]
    act: Annotated[int, Field(strict=True, ge=1, le=9)]
    title: Line
    summary: Paragraph


class PlotOutline(StageContent):
    """The content of PLOT_OUTLINE: the chapters in reading order, numbered 1, 2, 3 ….

    The first chapter is in act 1; each other chapter is in the act of the chapter before, or in the next act.
    """

    chapters: Annotated[tuple[Chapter, ...], Field(min_length=3, max_length=60)]

    @model_validator(mode="after")
    def _check_reading_order(self) -> Self:
        if [chapter.number for chapter in self.chapters] != list(range(1, len(self.chapters) + 1)):
            raise ValueError("chapters must be numbered 1, 2, 3 … in the order in which they are listed")
        acts = [chapter.act for chapter in self.chapters]
        if acts[0] != 1 or any(later - earlier not in (0, 1) for earlier, later in pairwise(acts)):
            raise ValueError(
                "acts start at 1, and each chapter has the act of the previous chapter or the next act"
            )
        return self


def _require_distinct_names(what: str, names: Iterable[str]) -> None:
    """Raise ValueError if two names are equal, ignoring case."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"{what} must have different names; {name!r} occurs twice")
        seen.add(name.casefold())


AnyContent = Concept | StoryConception | Worldview | Characters | PlotOutline
"""The content of any stage. No two models have the same fields, so a document fits at most one model."""

STAGE_CONTENT: Mapping[GenesisStage, type[AnyContent]] = MappingProxyType(
    {
        GenesisStage.CONCEPT_SELECTION: Concept,
        GenesisStage.STORY_CONCEPTION: StoryConception,
        GenesisStage.WORLDVIEW: Worldview,
        GenesisStage.CHARACTERS: Characters,
        GenesisStage.PLOT_OUTLINE: PlotOutline,
    }
)
"""The model of the content of each stage except FINISHED."""


class Proposal(_Strict):
    """The contents that a muse proposes for a stage: three for CONCEPT_SELECTION, one to five otherwise.

    `remark` is the muse's explanation of the options, such as how they use the writer's feedback.
    """

    stage: GenesisStage
    options: Annotated[tuple[AnyContent, ...], Field(min_length=1, max_length=PROPOSAL_OPTIONS_MAX)]
    remark: Paragraph | None = None

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        model = STAGE_CONTENT.get(self.stage)
        if model is None:
            raise ValueError(
                f"the stage {self.stage} has no content to propose; use one of {', '.join(STAGE_CONTENT)}"
            )
        if not all(isinstance(option, model) for option in self.options):
            raise ValueError(f"every option for the stage {self.stage} must be a {model.__name__}")
        if self.stage is GenesisStage.CONCEPT_SELECTION and len(self.options) != CONCEPT_OPTIONS:
            raise ValueError(f"a proposal must have {CONCEPT_OPTIONS} concepts, not {len(self.options)}")
        return self


_Words = Annotated[tuple[Word, ...], Field(max_length=12)]


class Preferences(_Strict):
    """The preferences of the writer for the proposals; all are optional.

    `language` is a BCP 47 tag (`en`, `zh-Hans`); null means the language of the writer's texts.
    """

    theme_preferences: _Words = ()
    style_preferences: _Words = ()
    language: (
        Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
        | None
    ) = None
    notes: Remark | None = None


class Feedback(_Strict):
    """The writer's feedback on the last proposal; `rating` from 1 (worst) to 5 (best)."""

    feedback: Remark
    rating: Annotated[int, Field(strict=True, ge=1, le=5)] | None = None


class RequestConceptGeneration(Preferences):
    """Request three concepts. The command is pending until an agent reports its result."""


class RequestStageProposal(_Strict):
    """Request a proposal for the current stage, based on the confirmed stages.

    The command is pending until an agent reports its result.
    """

    notes: Remark | None = None


class SubmitFeedback(Feedback):
    """Give feedback on the last proposal; the next proposal for the stage uses the feedback."""


class ConfirmStage(_Strict):
    """Confirm the current stage with an option of the last proposal or with the writer's own content.

    Exactly one of `choice` (index of the option, from 0) and `content` is required; `content` must have the
    fields of the stage's model. `stage`, if given, must be the current stage, so that a repeated request
    cannot confirm the next stage.
    """

    stage: GenesisStage | None = None
    choice: Annotated[int, Field(strict=True, ge=0, lt=PROPOSAL_OPTIONS_MAX)] | None = None
    content: Annotated[dict[str, JsonValue], Field(max_length=32)] | None = None

    @model_validator(mode="after")
    def _has_choice_or_content(self) -> Self:
        if (self.choice is None) == (self.content is None):
            raise ValueError(
                "give exactly one of `choice` (an option of the last proposal) and `content` (your own)"
            )
        return self


class StartGuidedRun(Preferences):
    """Let a guided run request the proposals of this stage and all later ones.

    Preferences that the command omits keep their last value. The run forbids no other command; while an agent
    works on a proposal, some are refused with PROPOSAL_PENDING, as without a run.

    The run requests a proposal when the stage has none, after feedback, and after a failed proposal. In
    between, the run waits for the writer. It ends when the last stage is confirmed, by `StopGuidedRun` or
    `AbandonSession`, after `GENESIS_GUIDED_RUN_H` hours, or after three failed proposals in a row.
    """


class StopGuidedRun(_Strict):
    """Stop the guided run. The session continues, and a proposal that was requested is still recorded."""


class AbandonSession(_Strict):
    """End the session; pending commands fail and their tasks are cancelled. Cannot be undone."""

    reason: Remark | None = None
