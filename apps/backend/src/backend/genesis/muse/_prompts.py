"""The prompts for a language model, from the files in `prompts/`."""

import tomllib
from functools import cache
from importlib.resources import files

from pydantic_core import to_json
from shared_types.genesis import STAGE_CONTENT

from backend.genesis.muse._muse import Brief

__all__ = ["opening", "retry", "system"]


def system() -> str:
    """Return the system prompt, the same for all stages."""
    return _read("system.md")


def opening(brief: Brief) -> str:
    """Return the user prompt for *brief*, with the JSON Schema of the stage's content."""
    return _read("brief.md").format(
        stage=brief.stage.value,
        task=tomllib.loads(_read("tasks.toml"))[brief.stage.value],
        preferences=_shown(brief.preferences.model_dump(exclude_none=True)),
        confirmed=_shown({stage.value: content for stage, content in brief.confirmed.items()}),
        feedback=_shown(brief.feedback),
        schema=_shown(STAGE_CONTENT[brief.stage].model_json_schema()),
    )


def retry(problems: str) -> str:
    """Return the prompt that requests a corrected response; *problems*: the errors of the last response."""
    return _read("retry.md").format(problems=problems)


def _shown(value: object) -> str:
    return to_json(value, indent=1).decode()


@cache
def _read(name: str) -> str:
    return (files("backend.genesis.muse") / "prompts" / name).read_text("utf-8")
