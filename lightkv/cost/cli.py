"""``lightkv cost``: FLOPs and KV memory of a request, without running the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lightkv.cost.presets import MergeSchedule
    from lightkv.cost.presets.shape import ModelShape
    from lightkv.cost.records import Cost
    from lightkv.cost.token_counts import Partition
    from lightkv.cost.workload import Convention, Workload


@click.command("cost")
@click.argument("model")
@click.option("--layers", help="Merge after these 0-based decoder layers, as 15,23,31.")
@click.option("--windows", help="Windows per side at each stage, as 4,2,1; default 1 each.")
@click.option("--ratios", help="Share merged away at each stage, as .5,.5,.5; default .5 each.")
@click.option("--retention", type=float, help="Share of KV entries kept after prefill.")
@click.option("--prompt", default=48, show_default=True, help="Prompt tokens.")
@click.option("--generate", default=100, show_default=True, help="Generated tokens.")
@click.option("--vision-tokens", type=int, help="Vision tokens; default: the model's usual image.")
@click.option(
    "--grids",
    help="Rows x columns of the grids that they lie on, as 24x24,32x48; default: as the usual "
    "image. Vision tokens beyond them are line breaks.",
)
@click.option(
    "--partition",
    type=click.Choice(["true-grid", "square"]),
    default="true-grid",
    show_default=True,
    help="Windows on these grids, as the method cuts them, or on a square re-reading of the "
    "tokens, as the released code does.",
)
@click.option("--tiles", type=int, help="Tiles of the vision tower; default: as the usual image.")
@click.option(
    "--convention",
    type=click.Choice(["paper", "paper-used-layers", "executed"]),
    default="paper",
    show_default=True,
    help="What counts as a FLOP of the request.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def cost_command(
    model: str,
    layers: str | None,
    windows: str | None,
    ratios: str | None,
    retention: float | None,
    prompt: int,
    generate: int,
    vision_tokens: int | None,
    grids: str | None,
    partition: Partition,
    tiles: int | None,
    convention: str,
    as_json: bool,
) -> None:
    """FLOPs and KV memory of a request to MODEL, a preset's name or a path to a config.

    Nothing is run and no weights are read. Without --layers and --retention it is the full cache.
    """
    from lightkv.cost.workload import workload_cost
    from lightkv.errors import LightKVError

    try:
        shape, request = _model(model, vision_tokens, grids, tiles, prompt, generate)
        schedule = _schedule(layers, windows, ratios)
        rules = _convention(convention)
        full = workload_cost(shape, request, convention=rules)
        compressed = None
        if schedule is not None or retention is not None:
            compressed = workload_cost(
                shape,
                request,
                schedule=schedule,
                partition=partition,
                retention=retention,
                convention=rules,
            )
    except LightKVError as error:
        raise click.ClickException(str(error)) from error
    click.echo(_as_json(full, compressed) if as_json else _as_table(full, compressed))


def _model(
    model: str,
    vision_tokens: int | None,
    grids: str | None,
    tiles: int | None,
    prompt: int,
    generate: int,
) -> tuple[ModelShape, Workload]:
    """The model's shape and the request, from a preset's name or a path."""
    from pathlib import Path

    from lightkv.cost.presets import preset, presets
    from lightkv.cost.workload import Workload
    from lightkv.errors import UnknownNameError

    if model in presets():
        named = preset(model)
        shape, usual = named.shape, Workload.of(named)
    elif Path(model).exists():
        shape = _shape_on_disk(model)
        side = shape.vision.image_size // shape.vision.patch_size if shape.vision else 0
        usual = Workload(side**2, grids=((side, side),) if side else ())
    else:
        raise UnknownNameError("model preset or path", model, presets())
    sides = usual.grids if vision_tokens is None else ()
    if grids is not None:
        sides = _sides(grids)
    counted = usual.vision_tokens if grids is None else sum(rows * cols for rows, cols in sides)
    request = Workload(
        vision_tokens=counted if vision_tokens is None else vision_tokens,
        tiles=usual.tiles if tiles is None else tiles,
        prompt_tokens=prompt,
        generated_tokens=generate,
        grids=sides,
    )
    return shape, request


def _sides(text: str) -> tuple[tuple[int, int], ...]:
    """Rows and columns of grids, as "24x24,32x48"."""
    import re

    from lightkv.errors import InvalidValueError

    if not re.fullmatch(r"\d+x\d+(,\d+x\d+)*", text):
        raise InvalidValueError("--grids", text, "rows x columns separated by commas: 24x24,32x48")
    sides = [part.split("x") for part in text.split(",")]
    return tuple((int(rows), int(cols)) for rows, cols in sides)


def _shape_on_disk(path: str) -> ModelShape:
    """The shape of the model whose config lies at ``path``, a file or its folder."""
    from transformers import AutoConfig

    from lightkv.cost.presets.shape import ModelShape
    from lightkv.errors import ModelError

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no usable model config at {path}: {error}") from error
    return ModelShape.from_config(config)


def _schedule(layers: str | None, windows: str | None, ratios: str | None) -> MergeSchedule | None:
    """The merge schedule that the options spell, if any."""
    from lightkv.cost.presets import MergeSchedule
    from lightkv.errors import InvalidValueError

    if layers is None:
        for name, value in (("--windows", windows), ("--ratios", ratios)):
            if value is not None:
                raise InvalidValueError(name, value, "only together with --layers")
        return None
    stages = _numbers("--layers", layers)
    return MergeSchedule(
        layers=tuple(int(number) for number in stages),
        windows=tuple(
            int(n) for n in _numbers("--windows", windows or ",".join("1" * len(stages)))
        ),
        ratios=_numbers("--ratios", ratios or ",".join([".5"] * len(stages)), whole=False),
    )


def _numbers(option: str, text: str, whole: bool = True) -> tuple[float, ...]:
    """Comma-separated numbers."""
    from lightkv.errors import InvalidValueError

    kind = "whole numbers" if whole else "numbers"
    try:
        return tuple(int(part) if whole else float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidValueError(option, text, f"{kind} separated by commas") from error


def _convention(name: str) -> Convention:
    """The convention of that name."""
    from lightkv.cost.workload import EXECUTED, PAPER, PAPER_USED_LAYERS

    return {"paper": PAPER, "paper-used-layers": PAPER_USED_LAYERS, "executed": EXECUTED}[name]


def _rows(cost: Cost) -> dict[str, float]:
    """What is printed: FLOPs in tera, KV in GiB."""
    from lightkv.cost.records import GIB

    flops, kv = cost.flops, cost.kv
    tera = {
        "vision tower": flops.vision,
        "projector": flops.projector,
        "decoder, prefill": flops.prefill,
        "LM head, prefill": flops.head_prefill,
        "matching": flops.matching,
        "decoder, decode": flops.decode,
        "LM head, decode": flops.head_decode,
        "total": flops.total,
    }
    gib = {"text": kv.text, "vision": kv.vision, "generated": kv.generated, "total": kv.total}
    rows = {f"FLOPs, {name} (T)": value / 1e12 for name, value in tera.items()}
    return rows | {f"KV, {name} (GiB)": value / GIB for name, value in gib.items()}


def _as_table(full: Cost, compressed: Cost | None) -> str:
    """An aligned table, with the compressed request and its share beside the full one."""
    left = _rows(full)
    if compressed is None:
        return "\n".join(f"{name:32}{value:>12.4f}" for name, value in left.items())
    right = _rows(compressed)
    lines = [f"{'':32}{'full':>12}{'compressed':>12}{'share':>9}"]
    for name, value in left.items():
        share = f"{right[name] / value:9.1%}" if value else f"{'-':>9}"
        lines.append(f"{name:32}{value:>12.4f}{right[name]:>12.4f}{share}")
    return "\n".join(lines)


def _as_json(full: Cost, compressed: Cost | None) -> str:
    """FLOPs, bytes and per-layer counts as JSON."""
    import json
    from dataclasses import asdict

    named = {"full": full} if compressed is None else {"full": full, "compressed": compressed}
    return json.dumps(
        {
            name: asdict(cost) | {"total_flops": cost.flops.total, "total_kv_bytes": cost.kv.total}
            for name, cost in named.items()
        },
        indent=2,
    )
