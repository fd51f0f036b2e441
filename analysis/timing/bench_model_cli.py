"""``lightkv bench model``: whole requests to a decoder of full depth."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.outputs import check_out
from lightkv.engine.drivers import DRIVERS
from lightkv.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@click.command("model")
@click.argument("shapes", nargs=-1)
@click.option(
    "--tokens",
    multiple=True,
    type=int,
    default=(576,),
    show_default=True,
    help="Vision tokens of a prompt. Repeatable.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="vanilla, a name, name:field=value;..., or methods joined by |. Repeatable.",
)
@click.option("--text", default=64, show_default=True, help="Text tokens after them.")
@click.option("--batch-size", default=1, show_default=True)
@click.option("--layers", default=None, type=int, help="Depth; default: the preset's own.")
@click.option("--new-tokens", default=32, show_default=True, help="Length of each answer.")
@click.option("--warmup", default=1, show_default=True, help="Rounds that are not counted.")
@click.option("--repeats", default=5, show_default=True, help="Rounds that are.")
@click.option("--retention", default=0.2, show_default=True, help="For evictors that name none.")
@click.option("--driver", default="auto", show_default=True, type=click.Choice(DRIVERS))
@click.option("--half-products", is_flag=True, help="Scores of half-precision products (CUDA).")
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default=None, help="Default: bfloat16 where the device has it.")
@click.option("--seed", default=0, show_default=True)
@click.option("--seconds", default=None, type=float, help="Begin no piece later than this.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="CSV to which each finished piece is added; what it holds is not measured again.",
)
def bench_model(
    shapes: tuple[str, ...],
    tokens: tuple[int, ...],
    methods: tuple[str, ...],
    text: int,
    batch_size: int,
    layers: int | None,
    new_tokens: int,
    warmup: int,
    repeats: int,
    retention: float,
    driver: str,
    half_products: bool,
    device: str,
    dtype: str | None,
    seed: int,
    seconds: float | None,
    out: Path | None,
) -> None:
    """Whole requests to decoders of the SHAPES (presets) at full depth, methods in turn.

    One layer's random weights are shared by all layers, and read from memory in each. Shown are
    medians, and ratios to the full cache of the same round.
    """
    from analysis.timing.bench_model import measure_model
    from analysis.timing.model_settings import METHODS, ModelBenchSettings

    check_out(out, ".csv")
    settings = ModelBenchSettings(
        shapes or ("llava-1.5-7b",),
        tokens,
        methods or METHODS,
        text,
        batch_size,
        layers,
        new_tokens,
        warmup,
        repeats,
        retention,
        driver,  # type: ignore[arg-type]  # one of DRIVERS, click sees to it
        half_products,
        device,
        dtype,
        seed,
    )
    command = shlex.join(["lightkv", *sys.argv[1:]])
    frame = measure_model(settings, out, command=command, seconds=seconds, tell=click.echo)
    if frame.empty:
        return
    _show(frame)


@click.command("table")
@click.argument("recorded", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def bench_table(recorded: Path) -> None:
    """Medians and ratios of a CSV that ``bench model`` wrote, here or on another machine."""
    import pandas as pd

    frame = pd.read_csv(recorded)
    if not {"piece", "method", "repeat"} <= set(frame.columns):
        raise InputError(f"{recorded.name} is not a record of `lightkv bench model`")
    _show(frame)


def _show(frame: pd.DataFrame) -> None:
    from analysis.options import table
    from analysis.timing.model_summary import summarise_model

    click.echo(table(summarise_model(frame)))
    for _, row in frame[frame["repeat"].isna()].iterrows():
        where = f"{row['shape']}, {row['tokens']} tokens"
        click.echo(f"not measured: {row['method']} on {where}: {row['reason']}")
