"""``lightkv simulate``: the simulations of two rooms under one name, each loaded when called."""

from __future__ import annotations

from pathlib import Path

import click

from analysis.simulation.cli import shown, simulation_options
from figures.cli import LazyGroup

simulate_group = LazyGroup(
    "simulate",
    help="How far estimators, intervals and verdicts can be trusted at the sizes used here.",
    where={
        "information": "analysis.simulation.cli:information_command",
        "scores": "analysis.simulation.cli:scores_command",
        "verdicts": "figures.simulate_cli:verdicts_command",
    },
)


@click.command("verdicts")
@simulation_options
def verdicts_command(repeats: int | None, seed: int, out: Path | None, write: Path | None) -> None:
    """How often the rules of verdicts err, at the edge of what each claims."""
    from figures.rule_simulation import REPEATS, readable, verdict_table

    frame = verdict_table(repeats=repeats or REPEATS, seed=seed, out=out, progress=True)
    shown("verdicts", frame, readable, write)
