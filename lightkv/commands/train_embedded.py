"""``lightkv train-embedded``: train, evaluate and write the embedded model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("train-embedded")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("embedded-checkpoint"),
    show_default=True,
    help="Folder for the checkpoint, its log, metrics and model card.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder of the resumable state.  [default: OUT/state]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads of torch.")
@click.option("--compile/--no-compile", default=True, show_default=True)
@click.option("--save-every", type=click.IntRange(1), default=200, show_default=True)
@click.option(
    "--evaluate",
    "count",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="Held-out items per kind; 0 skips the evaluation and the model card.",
)
@click.option("--fresh", is_flag=True, help="Discard a saved state instead of continuing it.")
@click.option("--quick", is_flag=True, help="A few steps of a tiny model, to try the command.")
def train_embedded_command(
    out: Path,
    state: Path | None,
    device: str,
    seed: int,
    threads: int | None,
    compile: bool,
    save_every: int,
    count: int,
    fresh: bool,
    quick: bool,
) -> None:
    """Train the embedded model from scratch.

    An interrupted run continues where its last saved state left off when the same command is
    given again.
    """
    from lightkv.embedded.training import train_embedded

    train_embedded(
        out,
        state=state,
        device=device,
        seed=seed,
        threads=threads,
        compile=compile,
        save_every=save_every,
        evaluate_count=count,
        fresh=fresh,
        quick=quick,
    )
