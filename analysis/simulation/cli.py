"""``lightkv simulate``: how far estimators and intervals can be trusted at the sizes used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import pandas as pd

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--repeats", type=click.IntRange(min=2), default=None, help="Draws a cell; see the page."
    ),
    click.option("--seed", default=0, show_default=True),
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="CSV file of all numbers; an unfinished one is gone on with.",
    ),
    click.option(
        "--write",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        default=None,
        help="Page to put the readable table into, between its markers.",
    ),
)


def simulation_options(command: Command) -> Command:
    """Options of every simulation."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def shown(
    name: str, frame: pd.DataFrame, readable: Callable[[pd.DataFrame], str], write: Path | None
) -> None:
    """Print the readable table, and put it into a page if one is given."""
    from analysis.simulation.pages import write_section

    click.echo(readable(frame))
    if write is not None:
        write_section(write, name, readable(frame))


@click.command("information")
@simulation_options
def information_command(
    repeats: int | None, seed: int, out: Path | None, write: Path | None
) -> None:
    """Bias, spread and coverage of estimators of mutual information."""
    from analysis.simulation.information import REPEATS, information_table
    from analysis.simulation.information_page import readable

    frame = information_table(repeats=repeats or REPEATS, seed=seed, out=out, progress=True)
    shown("information", frame, readable, write)


@click.command("scores")
@simulation_options
def scores_command(repeats: int | None, seed: int, out: Path | None, write: Path | None) -> None:
    """How often the intervals of benchmark scores hold the truth."""
    from analysis.simulation.scores import REPEATS, readable, score_table

    frame = score_table(repeats=repeats or REPEATS, seed=seed, out=out, progress=True)
    shown("scores", frame, readable, write)
