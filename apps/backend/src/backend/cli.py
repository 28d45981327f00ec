"""The program ``backend``: run the product on this machine, migrate its schema, check and repair its rows."""

import asyncio
import shlex
from types import MappingProxyType
from typing import Annotated, Literal

import typer
from relaybox.cli import LazyCommand, LazyGroup

__all__ = ("app",)


class _Program(LazyGroup):
    lazy = MappingProxyType(
        {
            "migrate": LazyCommand(
                target="backend._operations:migrate", help="Bring the tables to this version."
            ),
            "rebuild": LazyCommand(
                target="backend._operations:rebuild",
                help="Compare snapshots with domain_events, or repair them.",
            ),
        }
    )


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Genesis, an AI novel-writing product, and Workspace, chess studies.",
)


@app.callback()
def main() -> None:
    """Genesis, an AI novel-writing product, and Workspace, chess studies."""


@app.command()
def run() -> None:
    """Run the whole product on this machine until Ctrl-C."""
    # Imported here: backend.product needs the extra 'local', which a production image does not install.
    from relaybox.settings import load_settings

    from backend.product import run_product
    from backend.running import ProductSettings

    raise typer.Exit(asyncio.run(run_product(load_settings(ProductSettings))))


@app.command()
def env() -> None:
    """Print the settings of the running product for a shell: eval "$(backend env)"."""
    from relaybox.settings import load_settings

    from backend.running import ProductSettings, running_environment

    for name, value in running_environment(load_settings(ProductSettings)).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per part.")] = False,
) -> None:
    """Print the state of every part of the running product; exit code 1 if one is down or not ready."""
    from pydantic import TypeAdapter
    from pydantic_core import to_json
    from relaybox.local import PartState, PartStatus
    from relaybox.settings import load_settings

    from backend.running import ProductSettings, running_parts

    reported = running_parts(load_settings(ProductSettings))
    parts = TypeAdapter(list[PartStatus]).validate_python(reported)
    for part in parts:
        typer.echo(to_json(part).decode() if as_json else str(part))
    if any(part.keeps_crashing or part.state is not PartState.READY for part in parts):
        raise typer.Exit(1)


@app.command()
def demo(
    story: Annotated[
        Literal["genesis", "guided", "workspace"],
        typer.Argument(help="The example: a novel, a novel with a guided run, or a chess club."),
    ] = "genesis",
    language: Annotated[Literal["zh", "en"], typer.Option(help="The language of the novel.")] = "zh",
) -> None:
    """Run a whole example with the running product; if none runs, with a temporary product."""
    from backend.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(story, language)))
