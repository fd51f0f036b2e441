"""The console script ``lightkv``: the commands of all rooms, each loaded when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click

from lightkv import __version__
from lightkv.commands.importing import with_imports
from lightkv.errors import LightKVError

ROOMS: Final = ("lightkv.cli", "analysis.cli")
"""Modules whose ``COMMANDS`` maps a command's name to "module:attribute"."""

COMMANDS: Final[dict[str, str]] = {
    "artefacts": "figures.reproduce_cli:artefacts_command",
    "check-sweep": "figures.check_cli:check_sweep_command",
    "notebook": "figures.reproduce_cli:notebook_command",
    "report": "figures.reproduce_cli:report_command",
    "reproduce": "figures.reproduce_cli:reproduce_command",
    "results": "figures.results_cli:results_group",
    "simulate": "figures.simulate_cli:simulate_group",
}

USER_ERROR: Final = 2
INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and prints our errors in one line."""

    def __init__(self, *args: Any, where: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.where = dict(where)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted(self.where)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in self.where:
            return None
        module, attribute = self.where[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return with_imports(command)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error that was raised on purpose ends as one line without a traceback."""
        try:
            return super().invoke(ctx)
        except LightKVError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(USER_ERROR)
        except KeyboardInterrupt:
            click.echo("\nInterrupted; finished work is kept, the same command goes on.", err=True)
            ctx.exit(INTERRUPTED)


def commands() -> dict[str, str]:
    """Commands of all rooms; a name belongs to one room only."""
    known = dict(COMMANDS)
    for room in ROOMS:
        if find_spec(room) is not None:
            known.update(import_module(room).COMMANDS)
    return known


@click.group(
    cls=LazyGroup,
    where=commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="lightkv")
def main() -> None:
    """KV-cache compression in vision-language models: see it, test it, reproduce it."""


if __name__ == "__main__":
    sys.exit(main())
