"""A muse that uses a language model at an endpoint of the chat-completions protocol."""

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

_RESPONSE_CHARS_MAX = 1_000_000
_PROBLEMS_MAX = 20
_NO_ENDPOINT = "MUSE_BASE_URL is not the address of a chat-completions endpoint; check it"


@dataclass(frozen=True, kw_only=True)
class LanguageModelMuse:
    """Requests a proposal as JSON from a model; if invalid, requests it once more with the validation errors.

    base_url: address of the chat-completions endpoint.
    api_key: empty for endpoints without authentication.
    model: name of the model at the endpoint.
    timeout_s: seconds for the whole proposal, including retries.
    retries_max: retries of one request after 429 (after Retry-After), 5xx or a broken connection; the library
        openai waits between them, with jitter.

    The requests have no `response_format`: endpoints interpret the field differently, and some refuse it.
    """

    base_url: str
    api_key: SecretStr
    model: str
    timeout_s: float
    retries_max: int

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        """Return a valid proposal for the stage of *brief*; see `Muse.propose`.

        Raises:
            MuseTimedOut: There is no proposal within `timeout_s`.
            MuseUnavailable: The endpoint cannot be reached, or still returns 5xx after the last retry.
            MuseRateLimited: The endpoint still returns 429 after the last retry.
            MuseRefused: The endpoint refuses the request: key, model or address are wrong.
            MuseAnswerBroken: Neither of two responses was a valid proposal.
        """
        messages: list[ChatCompletionMessageParam] = [
            ChatCompletionSystemMessageParam(role="system", content=_prompts.system()),
            ChatCompletionUserMessageParam(role="user", content=_prompts.opening(brief)),
        ]
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        await progress(10.0)
        async with self._client() as client:
            response = await self._ask(client, messages, deadline)
            await progress(70.0)
            try:
                proposal = _read(brief.stage, response)
            except _InvalidResponse as invalid:
                messages.append(ChatCompletionAssistantMessageParam(role="assistant", content=response))
                retry_request = _prompts.retry(invalid.problems)
                messages.append(ChatCompletionUserMessageParam(role="user", content=retry_request))
                response = await self._ask(client, messages, deadline)
                await progress(90.0)
                proposal = self._read_retried(brief.stage, response)
        await progress(100.0)
        return proposal

    def _client(self) -> openai.AsyncOpenAI:
        """Return a client for one proposal; a new connection takes little time compared with a response."""
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
        # The library returns any body with status 200, for example a page of HTML.
        completed = cast("object", completion)
        if not isinstance(completed, ChatCompletion) or not completed.choices:
            raise MuseAnswerBroken(_NO_ENDPOINT)
        return (completed.choices[0].message.content or "")[:_RESPONSE_CHARS_MAX]

    def _read_retried(self, stage: GenesisStage, response: str) -> Proposal:
        try:
            return _read(stage, response)
        except _InvalidResponse as invalid:
            raise MuseAnswerBroken(
                f"the model {self.model!r} returned no valid proposal for {stage}, also after a retry "
                f"({invalid.kinds}); request the proposal again, or set another MUSE_MODEL"
            ) from None

    @asynccontextmanager
    async def _mapped_errors(self) -> AsyncGenerator[None, None]:
        """Convert the errors of the library openai to MuseError.

        The new errors have neither a cause nor the text of the response nor the address: endpoints repeat a
        refused key in the response, and some addresses contain a key.
        """
        try:
            yield
        except (openai.APITimeoutError, TimeoutError):
            raise MuseTimedOut(
                f"the language model returned no proposal within {self.timeout_s:g} s; "
                "request the proposal again, or increase MUSE_TIMEOUT_S"
            ) from None
        except openai.APIConnectionError:
            raise MuseUnavailable(
                "the language model cannot be reached; check MUSE_BASE_URL and the network, "
                "then request the proposal again"
            ) from None
        except openai.RateLimitError:
            raise MuseRateLimited(
                "the language model returned 429 (rate limit) to all attempts; request the proposal later"
            ) from None
        except openai.APIStatusError as error:
            raise _status_error(error.status_code) from None
        except (openai.APIError, ValueError):
            raise MuseAnswerBroken(_NO_ENDPOINT) from None


def _status_error(status: int) -> MuseUnavailable | MuseRefused:
    if status >= 500:
        return MuseUnavailable(f"the language model returns {status}; request the proposal later")
    return MuseRefused(
        f"the language model refuses the request with {status}; "
        "check MUSE_API_KEY, MUSE_MODEL and MUSE_BASE_URL"
    )


class _Options(BaseModel):
    """The structure of a response, before its options are validated."""

    options: list[dict[str, JsonValue]] = Field(min_length=1, max_length=PROPOSAL_OPTIONS_MAX)
    remark: Paragraph | None = None


class _InvalidResponse(Exception):
    """Raised within this module when a response is no valid proposal.

    problems: the validation errors, one per line, for the retry; may contain text of the response.
    kinds: the types of the validation errors, for the error message; contains no text of the response.
    """

    def __init__(self, problems: str, kinds: str) -> None:
        super().__init__(kinds)
        self.problems = problems
        self.kinds = kinds


def _read(stage: GenesisStage, response: str) -> Proposal:
    """Return the proposal in *response*: the JSON from the first opening brace to the last closing brace.

    Raises:
        _InvalidResponse: This part is not JSON, or not a valid proposal for *stage*.
    """
    document = response[response.find("{") : response.rfind("}") + 1]
    try:
        read = _Options.model_validate(from_json(document))
        options = [STAGE_CONTENT[stage].model_validate(option) for option in read.options]
        return Proposal(stage=stage, options=tuple(options), remark=read.remark)
    except ValidationError as error:
        raise _invalid(error) from None
    except ValueError as error:
        raise _InvalidResponse(f"The response is not JSON: {error}", "json_invalid") from None


def _invalid(error: ValidationError) -> _InvalidResponse:
    found = error.errors(include_url=False, include_input=False, include_context=False)[:_PROBLEMS_MAX]
    problems = [f"- {error.title}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found]
    return _InvalidResponse("\n".join(problems), ", ".join(sorted({one["type"] for one in found})))
