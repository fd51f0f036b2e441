"""``lightkv results``: the rows that ship with the package, planned and made."""

from __future__ import annotations

from pathlib import Path

import click

_STORE = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results/shipping"),
    show_default=True,
    help="Folder in which rows are kept until they are packed.",
)
RATE = 22
"""Questions a second, for rough estimates: the mean over the rows of X-6 that ship."""


@click.group("results")
def results_group() -> None:
    """Rows of the embedded models that ship: verdicts come from them, and some are asked again."""


@results_group.command("plan")
@click.argument("ids", nargs=-1)
@_STORE
def plan_command(ids: tuple[str, ...], store: Path) -> None:
    """List what ships for the artefacts IDS (default: all), and what is still to be asked.

    Nothing is asked. What several artefacts ask counts for the first of them. Where there is no
    store, the rows that ship are what is there, as a build would start from them. Minutes are an
    estimate, at 22 questions a second.
    """
    from figures.building import existing, plan
    from figures.models import opener

    total = left = 0
    with existing(store) as kept:
        click.echo("artefact  cells    rows  of which new  to be asked  minutes")
        for one in plan(opener(), kept, ids):
            minutes = one.left / RATE / 60
            click.echo(
                f"{one.artefact.id:8}{len(one.jobs):7}{one.rows:8}{one.added:14}{one.left:13}"
                f"{minutes:9.1f}"
            )
            total, left = total + one.added, left + one.left
    click.echo(f"together {total} rows, about {left / RATE / 60:.0f} minutes for those that lack")


@results_group.command("build")
@click.argument("ids", nargs=-1)
@_STORE
@click.option(
    "--seconds", type=float, help="Stop after about this long; default: when all is done."
)
@click.option(
    "--write",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Packed file; default: that of the installed package.",
)
def build_command(
    ids: tuple[str, ...], store: Path, seconds: float | None, file: Path | None
) -> None:
    """Ask what ships for the artefacts IDS (default: all) and is not there yet; pack it.

    Interrupt it whenever you like: the same command goes on. Two at once with different IDS may
    fill one store. What is packed is all that the store holds, of all artefacts.
    """
    from analysis.asking.packed import packaged
    from figures.building import build, write
    from figures.models import opener

    models = opener()
    for one in build(models, store, ids, seconds=seconds):
        click.echo(f"{one.id}: complete")
    target = packaged() if file is None else file
    click.echo(f"{target}: {write(models, store, target):,} bytes")
