"""Muses produce the proposals for a stage: OfflineMuse from a phrase bank, LanguageModelMuse with a model."""

from backend.genesis.muse._errors import (
    MuseAnswerBroken,
    MuseBriefIncomplete,
    MuseError,
    MuseNotInstalled,
    MuseRateLimited,
    MuseRefused,
    MuseTimedOut,
    MuseUnavailable,
)
from backend.genesis.muse._muse import Brief, Muse, Progress
from backend.genesis.muse._offline import OfflineMuse
from backend.genesis.muse._settings import MuseSettings, muse_from_settings

__all__ = [
    "Brief",
    "Muse",
    "MuseAnswerBroken",
    "MuseBriefIncomplete",
    "MuseError",
    "MuseNotInstalled",
    "MuseRateLimited",
    "MuseRefused",
    "MuseSettings",
    "MuseTimedOut",
    "MuseUnavailable",
    "OfflineMuse",
    "Progress",
    "muse_from_settings",
]
