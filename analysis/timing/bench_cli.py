"""``lightkv bench``: measurements of the tools themselves."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click

from analysis.outputs import check_out, write_text
from analysis.timing.bench_model_cli import bench_model, bench_table


@click.group("bench")
def bench_group() -> None:
    """Measure what the tools themselves cost."""


bench_group.add_command(bench_model)
bench_group.add_command(bench_table)


@bench_group.command("probe")
@click.option("--shape", default="llava-1.5-7b", show_default=True, help="Preset of dimensions.")
@click.option("--layers", default=2, show_default=True, help="Decoder layers to build.")
@click.option("--tokens", default=2304, show_default=True, help="Vision tokens, a square number.")
@click.option("--quantity", "quantities", multiple=True, default=("block_sum",), show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="JSON of it."
)
def bench_probe(
    shape: str,
    layers: int,
    tokens: int,
    quantities: tuple[str, ...],
    device: str,
    dtype: str,
    out: Path | None,
) -> None:
    """Memory that capturing quantities in every layer adds to a prefill.

    The model has random weights in the dimensions of --shape. Fewer layers than the real model has
    mean less memory of its own, so the share is then an upper bound.
    """
    from dataclasses import asdict

    from analysis.timing.probe_memory import measure_probe_memory

    check_out(out)
    memory = measure_probe_memory(
        shape, layers=layers, tokens=tokens, quantities=quantities, device=device, dtype=dtype
    )
    mib = 2**20
    click.echo(
        f"{', '.join(memory.quantities)}: {100 * memory.added:+.2f} % of the model's own peak\n"
        f"plain {memory.plain / mib:,.0f} MiB (weights {memory.weights / mib:,.0f}), "
        f"probed {memory.probed / mib:,.0f} MiB\n"
        f"{shape} dimensions, {layers} layers, random weights, {tokens} vision tokens, {dtype}, "
        f"{device}; {memory.kind}"
    )
    if out is not None:
        write_text(out, json.dumps({**asdict(memory), "added": memory.added}, indent=2) + "\n")


@bench_group.command("methods")
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="A name, name:field=value;..., or methods joined by |. Repeatable; default: all.",
)
@click.option("--shape", default="llava-1.5-7b", show_default=True, help="Preset of dimensions.")
@click.option("--tokens", default=2304, show_default=True, help="Vision tokens, a square number.")
@click.option("--text", default=64, show_default=True, help="Text tokens after them.")
@click.option("--batch-size", default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default=None, help="float32, bfloat16 or float16.")
@click.option("--retention", default=0.2, show_default=True, help="For evictors that name none.")
@click.option("--repeats", default=10, show_default=True, help="Rounds that are counted.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="FILE.json or FILE.csv of all rounds, written at the end.",
)
def bench_methods(
    methods: tuple[str, ...],
    shape: str,
    tokens: int,
    text: int,
    batch_size: int,
    device: str,
    dtype: str | None,
    retention: float,
    repeats: int,
    seed: int,
    out: Path | None,
) -> None:
    """Time and memory that methods add, as ratios to one decoder layer's prefill.

    The layer is a stock one under SDPA with random weights in the dimensions of --shape. Layer and
    methods take turns, --repeats times; shown are medians and quartiles.
    """
    from analysis.options import table
    from analysis.timing.bench_layer import BenchSettings
    from analysis.timing.bench_methods import measure_methods

    check_out(out, ".json", ".csv")
    settings = BenchSettings(
        shape, tokens, text, batch_size, device, dtype, retention, repeats, seed
    )
    bench = measure_methods(methods, settings, progress=True)
    click.echo(table(bench.summary()))
    for name, reason in bench.refused.items():
        click.echo(f"not measured: {name}: {reason}")
    known, mib = bench.setting, 2**20
    click.echo(
        f"layer: {1000 * statistics.median(bench.layer_seconds):,.1f} ms, "
        f"{bench.layer_peak_bytes / mib:,.1f} MiB; {shape} dimensions, random weights, "
        f"{tokens} + {text} tokens x {batch_size}, {known['dtype']}, {known['machine']}\n"
        f"a map of all heads: {known['map_bytes'] / mib:,.1f} MiB, "
        f"its text rows: {known['text_rows_bytes'] / mib:,.1f} MiB"
    )
    if out is not None:
        as_json = out.suffix == ".json"
        content = json.dumps(bench.content(), indent=1) + "\n" if as_json else ""
        write_text(out, content or bench.frame().to_csv(index=False))
