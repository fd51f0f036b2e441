"""``lightkv train-embedded``: train, evaluate and write an embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lightkv.embedded.qwen.stream import Budget

_OF_SQUARE = ("save_every",)
_OF_QWEN = ("minutes", "steps", "workers", "begin", "batch_factor", "processes", "dry", "bfloat16")
_OF_TRAINING = ("out", "state", "minutes", "steps", "begin", "count", "processes", "fresh")


@click.command("train-embedded")
@click.option(
    "--model",
    type=click.Choice(["square", "qwen", "fuyu"]),
    default="square",
    show_default=True,
    help="square: LLaVA for 128 x 128 pictures; qwen: Qwen3-VL for any aspect ratio and videos; "
    "fuyu: the square one's pictures without a vision encoder.",
)
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
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads of torch.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Compile the forward passes.  [default: no for qwen, yes for the others]",
)
@click.option(
    "--bfloat16/--no-bfloat16",
    default=None,
    help="qwen: forward passes in bfloat16.  [default: yes on cuda, no on cpu]",
)
@click.option("--save-every", type=click.IntRange(1), default=200, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.01), help="qwen: length of the whole run.")
@click.option("--steps", type=click.IntRange(1), help="qwen: length of the whole run.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="qwen: processes that draw the training batches.",
)
@click.option(
    "--begin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="qwen: share of the run to begin at, each time.  [default: where the state ends]",
)
@click.option(
    "--batch-factor",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="qwen: factor on the tokens of a batch, for another size of memory.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="qwen: kinds of items that are asked at a time.",
)
@click.option("--dry", is_flag=True, help="qwen: only measure what this machine trains a second.")
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
    model: str,
    out: Path,
    state: Path | None,
    device: str,
    seed: int,
    threads: int | None,
    compile: bool | None,
    bfloat16: bool | None,
    save_every: int,
    minutes: float | None,
    steps: int | None,
    workers: int,
    begin: float,
    batch_factor: float,
    processes: int,
    dry: bool,
    count: int,
    fresh: bool,
    quick: bool,
) -> None:
    """Train an embedded model from scratch.

    An interrupted run continues where its last saved state left off when the same command is
    given again. For `--model qwen` torch, transformers, numpy, pillow, safetensors, tokenizers,
    tqdm and click are enough; beside the sources, `python -m figures.cli train-embedded` does it.
    """
    other = _OF_SQUARE if model == "qwen" else _OF_QWEN
    _refuse_options_without_effect(other, f"on --model {model}")
    _check_device(device)
    low = device == "cuda" if bfloat16 is None else bfloat16
    if dry:
        _refuse_options_without_effect(_OF_TRAINING, "beside --dry")
        _print_rates(device, seed, threads, workers, bool(compile), low, batch_factor, quick)
        return
    shared: dict[str, Any] = {
        **{"state": state, "device": device, "seed": seed, "threads": threads},
        **{"evaluate_count": count, "fresh": fresh, "quick": quick},
    }
    if model == "qwen":
        from lightkv.embedded.qwen.training import train_native

        train_native(
            out,
            _budget(minutes, steps, begin),
            workers=workers,
            compile=bool(compile),
            bfloat16=low,
            batch_factor=batch_factor,
            processes=processes,
            **shared,
        )
        return
    from lightkv.embedded import plan
    from lightkv.embedded.training import train_embedded

    trained = plan.fuyu() if model == "fuyu" else plan.square()
    train_embedded(out, trained, compile=compile is not False, save_every=save_every, **shared)


def _budget(minutes: float | None, steps: int | None, begin: float) -> Budget:
    from lightkv.embedded.qwen.stream import Budget

    if (minutes is None) == (steps is None):
        raise click.UsageError("--model qwen needs one of --minutes and --steps")
    return Budget(minutes, steps, begin)


def _print_rates(
    device: str,
    seed: int,
    threads: int | None,
    workers: int,
    compile: bool,
    bfloat16: bool,
    batch_factor: float,
    quick: bool,
) -> None:
    import torch

    from lightkv.embedded.qwen.rates import rates
    from lightkv.embedded.qwen.recipe import planned

    if threads is not None:
        torch.set_num_threads(threads)
    seconds = 0.1 if quick else 3.0
    measured = rates(
        planned(seed, batch_factor, quick),
        device=device,
        workers=workers,
        compile=compile,
        bfloat16=bfloat16,
        seconds=seconds,
    )
    for line in measured:
        click.echo(json.dumps(line))


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: torch sees no GPU here; use --device cpu")


def _refuse_options_without_effect(names: tuple[str, ...], where: str) -> None:
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            raise click.UsageError(f"{option} has no effect {where}; leave it out")
