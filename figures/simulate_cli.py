"""``lightkv simulate``: the simulations of two rooms under one name, each loaded when called."""

from __future__ import annotations

from figures.cli import LazyGroup

simulate_group = LazyGroup(
    "simulate",
    help="How far estimators, intervals and verdicts can be trusted at the sizes used here.",
    where={"information": "analysis.simulation.cli:information_command"},
)
