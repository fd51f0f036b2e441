"""``lightkv simulate``: how far estimators and intervals can be trusted at the sizes used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd

    from analysis.simulation.grid import Cell, Simulate


@dataclass(frozen=True)
class Simulation:
    """What is simulated, and how its table reads.

    Attributes:
        cells: The whole grid, with a number of repeats per cell or without for the usual one.
        simulate: One cell, see :func:`analysis.simulation.grid.simulated`.
        readable: From all rows to markdown.
    """

    cells: Callable[..., list[Cell]]
    simulate: Simulate
    readable: Callable[[pd.DataFrame], str]


def simulation_command(name: str, about: str, load: Callable[[], Simulation]) -> click.Command:
    """A subcommand that simulates what ``load`` gives and fills the section ``name`` of a page."""

    @click.command(name, help=about)
    @click.option(
        "--repeats", type=click.IntRange(min=2), default=None, help="Draws a cell; see the page."
    )
    @click.option("--seed", default=0, show_default=True)
    @click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="CSV file of all numbers; an unfinished one is continued.",
    )
    @click.option(
        "--write",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        default=None,
        help="Page to put the readable table into, between its markers.",
    )
    def command(repeats: int | None, seed: int, out: Path | None, write: Path | None) -> None:
        from analysis.simulation.grid import simulated
        from analysis.simulation.pages import write_section

        simulation = load()
        cells = simulation.cells() if repeats is None else simulation.cells(repeats)
        table = simulation.readable(
            simulated(cells, simulation.simulate, seed=seed, out=out, progress=True)
        )
        click.echo(table)
        if write is not None:
            write_section(write, name, table)

    return command


def _information() -> Simulation:
    from analysis.simulation import information, information_page

    return Simulation(information.cells, information.simulate, information_page.readable)


def _scores() -> Simulation:
    from analysis.simulation import scores

    return Simulation(scores.cells, scores.simulate, scores.readable)


information_command = simulation_command(
    "information", "Bias, spread and coverage of estimators of mutual information.", _information
)
scores_command = simulation_command(
    "scores", "How often the intervals of benchmark scores hold the truth.", _scores
)
