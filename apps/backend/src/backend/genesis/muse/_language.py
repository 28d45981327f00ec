"""The language of a proposal: that of the writer."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, JsonValue

from backend.genesis.muse._muse import Brief

__all__ = ["Language", "language_of", "texts_of"]

Language = Literal["en", "zh"]

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ÿ]+")


def texts_of(models: Iterable[BaseModel]) -> str:
    """Return all texts in these models, one per line."""
    return "\n".join(text for model in models for text in _texts(model.model_dump(mode="json")))


def language_of(brief: Brief) -> Language:
    """Return the preferred language, else that of the writer's texts, else English.

    The first of confirmed contents, preferences and feedback that has any text decides: a story continues in
    its language, also if a short note is in another one.
    """
    wished = (brief.preferences.language or "").lower().split("-")[0]
    if wished == "zh":
        return "zh"
    if wished == "en":
        return "en"
    preferences = brief.preferences.model_copy(update={"language": None})
    for source in (brief.confirmed.values(), (preferences,), brief.feedback):
        language = _script(texts_of(source))
        if language is not None:
            return language
    return "en"


def _texts(document: JsonValue) -> Iterator[str]:
    match document:
        case str():
            yield document
        case list():
            for item in document:
                yield from _texts(item)
        case dict():
            for item in document.values():
                yield from _texts(item)
        case _:
            return


def _script(text: str) -> Language | None:
    """Return the language by script: one Han character counts as one Latin word. None without either."""
    han, latin = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if han == latin == 0:
        return None
    return "zh" if han >= latin else "en"
