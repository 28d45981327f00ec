"""A muse that asks a language model, at any endpoint that speaks the chat-completions protocol."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import openai
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessageParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
)
from pydantic import BaseModel, Field, JsonValue, SecretStr, ValidationError
from pydantic_core import from_json
from relaybox_types.text import Paragraph
from shared_types.genesis import PROPOSAL_OPTIONS_MAX, STAGE_CONTENT, GenesisStage, Proposal

from backend.genesis.muse import _prompts
from backend.genesis.muse._errors import (
    MuseAnswerBroken,
    MuseRateLimited,
    MuseRefused,
    MuseTimedOut,
    MuseUnavailable,
)
from backend.genesis.muse._muse import Brief, Progress

__all__ = ["LanguageModelMuse"]

_ANSWER_CHARS_MAX = 1_000_000
_PROBLEMS_MAX = 20
_NO_ENDPOINT = "what answers at MUSE_BASE_URL is no chat-completions endpoint; check the address"


@dataclass(frozen=True, kw_only=True)
class LanguageModelMuse:
    """Asks a model for JSON, checks it against the stage's model, and asks once more if it does not fit.

    timeout_s: seconds for the whole proposal, with all retries.
    retries_max: how often one request is sent again after 429 (as late as Retry-After says), 5xx or a
        connection that broke; waiting in between is the library's, with jitter.

    No `response_format` is sent: compatible endpoints disagree about it, and some refuse whoever sends one.
    """

    base_url: str
    api_key: SecretStr
    model: str
    timeout_s: float
    retries_max: int

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        """See `Muse.propose`.

        Raises:
            MuseTimedOut: no proposal within `timeout_s`.
            MuseUnavailable: the endpoint cannot be reached, or answers 5xx to the last.
            MuseRateLimited: it answers 429 to the last.
            MuseRefused: it refuses the request: key, model or address are wrong.
            MuseAnswerBroken: two answers, and neither was a proposal for the stage.
        """
        messages: list[ChatCompletionMessageParam] = [
            ChatCompletionSystemMessageParam(role="system", content=_prompts.system()),
            ChatCompletionUserMessageParam(role="user", content=_prompts.opening(brief)),
        ]
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        await progress(10.0)
        async with self._client() as client:
            answer = await self._ask(client, messages, deadline)
            await progress(70.0)
            try:
                proposal = _read(brief.stage, answer)
            except _InvalidAnswer as invalid:
                messages.append(ChatCompletionAssistantMessageParam(role="assistant", content=answer))
                retry_request = _prompts.retry(invalid.problems)
                messages.append(ChatCompletionUserMessageParam(role="user", content=retry_request))
                answer = await self._ask(client, messages, deadline)
                await progress(90.0)
                proposal = self._read_retried(brief.stage, answer)
        await progress(100.0)
        return proposal

    def _client(self) -> openai.AsyncOpenAI:
        """A client for one proposal; a handshake is nothing beside an answer, and none is left open."""
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value() or "none",
            timeout=self.timeout_s,
            max_retries=self.retries_max,
        )

    async def _ask(
        self, client: openai.AsyncOpenAI, messages: list[ChatCompletionMessageParam], deadline: float
    ) -> str:
        async with self._mapped_errors(), asyncio.timeout_at(deadline):
            completion = await client.chat.completions.create(model=self.model, messages=messages)
        # The library hands on whatever came with 200, a page of HTML included.
        answered = cast("object", completion)
        if not isinstance(answered, ChatCompletion) or not answered.choices:
            raise MuseAnswerBroken(_NO_ENDPOINT)
        return (answered.choices[0].message.content or "")[:_ANSWER_CHARS_MAX]

    def _read_retried(self, stage: GenesisStage, answer: str) -> Proposal:
        try:
            return _read(stage, answer)
        except _InvalidAnswer as invalid:
            raise MuseAnswerBroken(
                f"the model {self.model!r} gave no valid proposal for {stage}, not even when told why "
                f"({invalid.kinds}); ask again, or choose another MUSE_MODEL"
            ) from None

    @asynccontextmanager
    async def _mapped_errors(self) -> AsyncGenerator[None, None]:
        """The library's errors as ours.

        `from None`, without the response's text and without the address: endpoints repeat the key they
        refuse, and some addresses carry one.
        """
        try:
            yield
        except (openai.APITimeoutError, TimeoutError):
            raise MuseTimedOut(
                f"the language model gave no proposal within {self.timeout_s:g} s; "
                "ask again, or raise MUSE_TIMEOUT_S"
            ) from None
        except openai.APIConnectionError:
            raise MuseUnavailable(
                "the language model cannot be reached; check MUSE_BASE_URL and the network, then ask again"
            ) from None
        except openai.RateLimitError:
            raise MuseRateLimited("the language model limits the rate; ask again later") from None
        except openai.APIStatusError as error:
            raise _status_error(error.status_code) from None
        except (openai.APIError, ValueError):
            raise MuseAnswerBroken(_NO_ENDPOINT) from None


def _status_error(status: int) -> MuseUnavailable | MuseRefused:
    if status >= 500:
        return MuseUnavailable(f"the language model answers {status}; ask again later")
    return MuseRefused(
        f"the language model refuses the request with {status}; "
        "check MUSE_API_KEY, MUSE_MODEL and MUSE_BASE_URL"
    )


class _Answer(BaseModel):
    """The form of an answer, before its options are checked against the stage's model."""

    options: list[dict[str, JsonValue]] = Field(min_length=1, max_length=PROPOSAL_OPTIONS_MAX)
    remark: Paragraph | None = None


class _InvalidAnswer(Exception):
    """Raised within this module when an answer is no proposal.

    `problems` tells the model what is wrong and may quote it; `kinds` is for the error, and quotes nothing.
    """

    def __init__(self, problems: str, kinds: str) -> None:
        super().__init__(kinds)
        self.problems = problems
        self.kinds = kinds


def _read(stage: GenesisStage, answer: str) -> Proposal:
    """The proposal in an answer, also if it is wrapped in a code fence or in talk."""
    document = answer[answer.find("{") : answer.rfind("}") + 1]
    try:
        read = _Answer.model_validate(from_json(document))
        options = [STAGE_CONTENT[stage].model_validate(option) for option in read.options]
        return Proposal(stage=stage, options=tuple(options), remark=read.remark)
    except ValidationError as error:
        raise _invalid(error) from None
    except ValueError as error:
        raise _InvalidAnswer(f"it is not JSON: {error}", "json_invalid") from None


def _invalid(error: ValidationError) -> _InvalidAnswer:
    found = error.errors(include_url=False, include_input=False, include_context=False)[:_PROBLEMS_MAX]
    problems = [f"- {error.title}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found]
    return _InvalidAnswer("\n".join(problems), ", ".join(sorted({one["type"] for one in found})))
