"""Which muse to ask, by environment."""

from typing import Annotated, Literal, assert_never

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.errors import SettingsError

from backend.genesis.muse._errors import MuseNotInstalled
from backend.genesis.muse._muse import Muse
from backend.genesis.muse._offline import OfflineMuse

__all__ = ["MuseSettings", "muse_from_settings"]


class MuseSettings(BaseSettings):
    """MUSE and MUSE_…; all but MUSE and MUSE_PACE_S are read with MUSE=llm only."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    muse: Literal["offline", "llm"] = "offline"
    #: Seconds the offline muse takes for each of its five steps, for a demo to be watched.
    muse_pace_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    #: Any endpoint that speaks the chat-completions protocol.
    muse_base_url: HttpUrl = HttpUrl("https://api.openai.com/v1")
    #: May be left out for an endpoint that asks for none.
    muse_api_key: SecretStr = SecretStr("")
    #: The model's name at that endpoint.
    muse_model: Annotated[str, Field(max_length=200)] = ""
    #: Seconds until a proposal is given up, with all its retries.
    muse_timeout_s: Annotated[float, Field(gt=0, le=600)] = 120.0
    #: Times a request is sent again after 429, 5xx or a broken connection.
    muse_retries_max: Annotated[int, Field(ge=0, le=5)] = 2


def muse_from_settings(settings: MuseSettings) -> Muse:
    """The muse these settings choose.

    Raises:
        SettingsError: MUSE=llm without MUSE_MODEL.
        MuseNotInstalled: MUSE=llm without the library it needs; the message has the line that installs it.
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
            "MUSE_MODEL: needed with MUSE=llm; set it to the name of a model at MUSE_BASE_URL"
        )
    try:
        # Imported only when chosen: the library is an extra, and takes most of a second to load.
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
