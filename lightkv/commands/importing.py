"""``--import MODULE``: the option of every command that makes a user's own module known."""

from __future__ import annotations

from collections.abc import Sequence

import click

NAME = "--import"


def with_imports(command: click.Command) -> click.Command:
    """The command, and all below it where it is a group, with the option :data:`NAME`."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_imports(inner)
    elif not any(NAME in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                [NAME],
                metavar="MODULE",
                multiple=True,
                expose_value=False,
                is_eager=True,
                callback=_load,
                help="Import a module first, by name or as FILE.py, so that the methods (tasks, "
                "metrics, ...) which it registers can be named. Repeatable.",
            )
        )
    return command


def _load(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> None:
    if names and not context.resilient_parsing:
        from lightkv.catalogue import load_everywhere

        load_everywhere(names)
