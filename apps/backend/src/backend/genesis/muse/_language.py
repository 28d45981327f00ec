"""Choose the language of a proposal, English or Chinese: the language of the writer."""

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
    """Return all strings in the fields of *models*, at any depth, one per line."""
    return "\n".join(text for model in models for text in _texts(model.model_dump(mode="json")))


def language_of(brief: Brief) -> Language:
    """Return the language of the proposal for *brief*.

    ``preferences.language`` decides, if it is English or Chinese. Otherwise the first of these sources that
    contains words decides: the confirmed contents, the other preferences, the feedback. Without words the
    language is English. So a story keeps its language even if the writer sends a note in another language.
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
    """Return zh if *text* has at least as many Han characters as Latin words, else en; None without words."""
    han, latin = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if han == latin == 0:
        return None
    return "zh" if han >= latin else "en"
