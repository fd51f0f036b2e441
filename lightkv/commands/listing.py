"""``lightkv list``: what can be named on the command line."""

from __future__ import annotations

import click


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "models", "families"]))
def list_command(kind: str) -> None:
    """List methods, presets of the papers' models, or model families."""
    for name, description in sorted(_entries(kind).items()):
        click.echo(f"{name:<28} {description}")


def _entries(kind: str) -> dict[str, str]:
    if kind == "methods":
        from lightkv.catalogue import methods

        return {name: f"{m.stage}: {m.description}" for name, m in methods().items()}
    if kind == "models":
        from lightkv.cost.presets import preset, presets

        return {name: preset(name).hub_id for name in presets()}
    from lightkv.families import FAMILIES

    return {
        name: (type(family).__doc__ or "").splitlines()[0]
        for family in FAMILIES
        for name in family.model_types
    }
