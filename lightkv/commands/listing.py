"""``lightkv list``: what can be named on the command line."""

from __future__ import annotations

import click


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "serving", "models", "families"]))
def list_command(kind: str) -> None:
    """List methods, what they ask of a server, presets of the papers' models, or model families."""
    if kind == "serving":
        for line in serving_table():
            click.echo(line)
        return
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


def serving_table() -> list[str]:
    """Lines of a Markdown table: every method, and what it asks of a server."""
    from lightkv.catalogue import compressor, methods
    from lightkv.contract.serving import FACTS, serving

    lines = [
        "| method | heads share entries | count known | attention rows | decoding | keys |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in methods().items():
        text = f"{name}:retention=0.2" if method.takes_retention else name
        facts = serving(compressor(text, FACTS))
        cells = (
            f"`{name}`",
            "yes" if facts.shares_heads else "no",
            "yes" if facts.count_known else "no",
            facts.rows,
            facts.decode,
            "renumbered" if facts.renumbers else "stay",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines
