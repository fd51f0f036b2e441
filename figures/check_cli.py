"""``lightkv check-sweep``: the names of a whole sweep, before any of its jobs starts."""

from __future__ import annotations

from functools import partial

import click

from analysis.options import method_options
from lightkv.errors import InputError


@click.command("check-sweep")
@click.option("--model", "models", multiple=True, help="Hub id or folder. Repeatable.")
@click.option("--task", "tasks", multiple=True, help="As of lightkv evaluate. Repeatable.")
@method_options
@click.option("--protocol", "protocols", multiple=True, help="As of lightkv evaluate. Repeatable.")
@click.option("--artefact", "ids", multiple=True, help="As of lightkv reproduce. Repeatable.")
def check_sweep_command(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    retentions: tuple[float, ...],
    protocols: tuple[str, ...],
    ids: tuple[str, ...],
) -> None:
    """Say which names and settings of a sweep can't be used, all at once.

    Weights are not read and data are not downloaded, so what depends on a model's dimensions or on
    the questions of a task is checked by the jobs themselves.
    """
    from analysis.asking.checking import checks_of, faults_of
    from figures.artefacts import artefact

    checks = checks_of(models, tasks, methods, retentions, protocols)
    faults = faults_of([*checks, *(partial(artefact, one) for one in ids)])
    if faults:
        raise InputError("the sweep can't be run:\n" + "\n".join(f"  {one}" for one in faults))
    click.echo("every name can be used")
