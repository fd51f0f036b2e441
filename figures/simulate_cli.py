"""``lightkv simulate``: the simulations of two rooms under one name, each loaded when called."""

from __future__ import annotations

from analysis.simulation.cli import Simulation, simulation_command
from figures.cli import LazyGroup

simulate_group = LazyGroup(
    "simulate",
    help="How far estimators, intervals and verdicts can be trusted at the sizes used here.",
    where={
        "information": "analysis.simulation.cli:information_command",
        "scores": "analysis.simulation.cli:scores_command",
        "verdicts": "figures.simulate_cli:verdicts_command",
        "power": "figures.simulate_cli:power_command",
    },
)


def _verdicts() -> Simulation:
    from figures import rule_simulation

    return Simulation(rule_simulation.cells, rule_simulation.simulate, rule_simulation.readable)


def _power() -> Simulation:
    from figures import power_simulation

    return Simulation(power_simulation.cells, power_simulation.simulate, power_simulation.readable)


verdicts_command = simulation_command(
    "verdicts", "How often the rules of verdicts err, at the edge of what each claims.", _verdicts
)
power_command = simulation_command(
    "power", "How often the rules find what is so, at numbers fixed beforehand.", _power
)
