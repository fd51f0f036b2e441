"""``lightkv check``: validate a model before anyone trusts a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


@click.command("check")
@click.argument("model", required=False)
@click.option("--all-tiny", is_flag=True, help="Tiny random models of every family instead.")
@click.option(
    "--shape",
    help="Random weights in the decoder dimensions of a preset (lightkv list models) instead; "
    "prints time and peak memory of generating under LightKV and TGV-KV as well.",
)
@click.option("--layers", type=int, help="With --shape: build fewer layers.")
@click.option(
    "--write",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --all-tiny: write the compatibility table to this file, between its markers "
    "<!-- compatibility --> and <!-- /compatibility --> if it has them. Repeatable.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N, mps.")
@click.option("--dtype", default=None, help="float32, bfloat16 or float16.")
@click.option("--attention", default="sdpa", show_default=True, help="sdpa or eager.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint.")
def check_command(
    model: str | None,
    all_tiny: bool,
    shape: str | None,
    layers: int | None,
    write: tuple[Path, ...],
    device: str,
    dtype: str | None,
    attention: str,
    trust_remote_code: bool,
) -> None:
    """Check MODEL (a hub id or a folder; the embedded model by default).

    Exits with 1 if a check fails.
    """
    if sum((all_tiny, shape is not None, model is not None)) > 1:
        raise click.UsageError("give one of MODEL, --all-tiny and --shape")
    if write and not all_tiny:
        raise click.UsageError("--write goes with --all-tiny")
    if layers is not None and shape is None:
        raise click.UsageError("--layers goes with --shape")
    if all_tiny:
        passed = _check_zoo(write)
    elif shape is not None:
        passed = _check_shape(shape, layers, device, dtype, attention)
    else:
        passed = _check_model(model, device, dtype, attention, trust_remote_code)
    if not passed:
        raise click.exceptions.Exit(1)


def _check_model(
    model: str | None, device: str, dtype: str | None, attention: str, remote: bool
) -> bool:
    import lightkv
    from lightkv.check.report import versions
    from lightkv.check.runs import check_model
    from lightkv.errors import LightKVError

    options: dict[str, Any] = {"trust_remote_code": True} if remote else {}
    try:
        vlm = lightkv.load(model, device=device, dtype=dtype, attention=attention, **options)
    except LightKVError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{vlm!r} with {versions()}")
    report = check_model(vlm)
    for line in report.lines():
        click.echo(line)
    return report.passed


def _check_shape(
    shape: str, layers: int | None, device: str, dtype: str | None, attention: str
) -> bool:
    from lightkv.check.report import versions
    from lightkv.check.runs import check_tiny, generation_costs
    from lightkv.check.shapes import build_shape
    from lightkv.errors import LightKVError

    try:
        vlm, entry = build_shape(
            shape, layers=layers, device=device, dtype=dtype, attention=attention
        )
    except LightKVError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{vlm!r}, random weights, with {versions()}")
    report = check_tiny(vlm, entry)
    for line in report.lines():
        click.echo(line)
    for cost in generation_costs(vlm, entry):
        peak = "" if cost.peak is None else f", peak {cost.peak / 2**30:.2f} GiB"
        click.echo(
            f"{cost.method:<16} {cost.prompt} tokens, {100 * cost.held:.1f} % of the cache held, "
            f"{cost.seconds:.2f} s{peak}"
        )
    return report.passed


def _check_zoo(write: Sequence[Path]) -> bool:
    from lightkv.check.report import versions, write_compatibility
    from lightkv.check.runs import check_zoo

    click.echo(versions())
    reports = []
    for report in check_zoo():
        reports.append(report)
        click.echo(report.summary())
        for line in report.lines():
            if line.startswith("FAIL"):
                click.echo(f"    {line}")
    for path in write:
        write_compatibility(path, reports)
    return all(report.passed for report in reports)
