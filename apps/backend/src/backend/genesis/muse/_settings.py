"""The settings that choose and configure the muse."""

from typing import Annotated, Literal, assert_never

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.errors import SettingsError

from backend.genesis.muse._errors import MuseNotInstalled
from backend.genesis.muse._muse import Muse
from backend.genesis.muse._offline import OfflineMuse

__all__ = ["MuseSettings", "muse_from_settings"]


class MuseSettings(BaseSettings):
    """The environment variables MUSE and MUSE_….

    MUSE_PACE_S applies only to MUSE=offline; all other variables MUSE_… apply only to MUSE=llm.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    #: ``offline``: proposals from the phrase bank. ``llm``: proposals of a language model.
    muse: Literal["offline", "llm"] = "offline"
    #: Seconds that the offline muse waits before each of its five steps, so that a demo can show progress.
    muse_pace_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    #: Address of an endpoint of the chat-completions protocol.
    muse_base_url: HttpUrl = HttpUrl("https://api.openai.com/v1")
    #: API key of the endpoint; empty for endpoints without authentication.
    muse_api_key: SecretStr = SecretStr("")
    #: Name of the model at the endpoint; required with MUSE=llm.
    muse_model: Annotated[str, Field(max_length=200)] = ""
    #: Seconds for one proposal, including retries.
    muse_timeout_s: Annotated[float, Field(gt=0, le=600)] = 120.0
    #: Retries of a request after 429, 5xx or a broken connection.
    muse_retries_max: Annotated[int, Field(ge=0, le=5)] = 2


def muse_from_settings(settings: MuseSettings) -> Muse:
    """Return the muse that the settings select.

    Raises:
        SettingsError: MUSE=llm, and MUSE_MODEL is empty.
        MuseNotInstalled: MUSE=llm, and the library openai is not installed.
    """
    match settings.muse:
        case "offline":
            return OfflineMuse(pace_s=settings.muse_pace_s)
        case "llm":
            return _language_model(settings)
        case _:
            assert_never(settings.muse)


def _language_model(settings: MuseSettings) -> Muse:
    if not settings.muse_model:
        raise SettingsError(
            "MUSE_MODEL: required with MUSE=llm; set it to the name of a model at MUSE_BASE_URL"
        )
    try:
        # Imported only if selected: the library is an extra, and its import takes most of a second.
        from backend.genesis.muse._language_model import LanguageModelMuse
    except ModuleNotFoundError as error:
        raise MuseNotInstalled(
            f"MUSE=llm needs the module {error.name!r}, which the extra 'llm' installs; in a clone of "
            "Relaybox, run: pip install ./packages/types ./packages/relaybox ./packages/shared-types "
            "'./apps/backend[llm]'"
        ) from None
    return LanguageModelMuse(
        base_url=str(settings.muse_base_url),
        api_key=settings.muse_api_key,
        model=settings.muse_model,
        timeout_s=settings.muse_timeout_s,
        retries_max=settings.muse_retries_max,
    )
