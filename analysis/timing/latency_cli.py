"""``lightkv latency``: time to the first token, time per step, throughput, memory."""

from __future__ import annotations

from pathlib import Path

import click

from analysis.options import method_options, model_options, table
from analysis.outputs import check_out


@click.command("latency")
@method_options
@model_options
@click.option("--context", default=None, type=int, help="Lengthen the prompt to this many tokens.")
@click.option("--new-tokens", default=32, show_default=True)
@click.option("--batch-size", default=1, show_default=True)
@click.option("--warmup", default=2, show_default=True, help="Rounds that are not counted.")
@click.option("--repeats", default=10, show_default=True, help="Rounds that are.")
@click.option("--seed", default=0, show_default=True)
@click.option("--image", type=click.Path(path_type=Path), default=None)
@click.option("--question", default=None, help="With --image; a generated picture by default.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="CSV of all runs."
)
def latency_command(
    methods: tuple[str, ...],
    retentions: tuple[float, ...],
    model: str | None,
    device: str,
    dtype: str | None,
    attention: str,
    context: int | None,
    new_tokens: int,
    batch_size: int,
    warmup: int,
    repeats: int,
    seed: int,
    image: Path | None,
    question: str | None,
    out: Path | None,
) -> None:
    """Measure methods in turn on one prompt; print means, deviations and ratios."""
    from analysis.asking.method_grid import compressors
    from analysis.tasks import task
    from analysis.timing.latency import (
        LatencySettings,
        lengthened,
        measure_latency,
        summarise_latency,
    )
    from lightkv import Request, load
    from lightkv.errors import InputError

    check_out(out)
    if (image is None) != (question is None):
        raise InputError("give --image and --question together, or neither")
    settings = LatencySettings(new_tokens, batch_size, warmup, repeats, seed)
    vlm = load(model, device=device, dtype=dtype, attention=attention)
    if image is not None and question is not None:
        request = Request((image,), question)
    else:
        request = task("embedded/read").items(1, seed)[0].request()
    asked = request if context is None else lengthened(vlm, request, context)
    compared = compressors(methods, retentions, vlm.facts)
    frame = measure_latency(vlm, compared, asked, settings)
    click.echo(table(summarise_latency(frame)))
    first = frame.iloc[0]
    click.echo(
        f"{first['model']} on {first['machine']}, {first['context']} prompt tokens; "
        f"peak_bytes: {first['memory_kind']}",
        err=True,
    )
    if out is not None:
        frame.to_csv(out, index=False)
