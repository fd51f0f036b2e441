"""The training of the native-resolution model as a function."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from tqdm.auto import tqdm

from lightkv.embedded.publish import export, versions, write_log, write_metrics
from lightkv.embedded.qwen import checkpoint
from lightkv.embedded.qwen.card import write_card
from lightkv.embedded.qwen.processing import build_processor
from lightkv.embedded.qwen.recipe import planned
from lightkv.embedded.qwen.scoring import Scoring, score
from lightkv.embedded.qwen.stream import Budget
from lightkv.embedded.qwen.trainer import STAGES, Trainer

logger = logging.getLogger(__name__)

_SHOWN: Final = ("loss", "color", "where", "read", "list", "legend", "order", "compare")
HELD_OUT: Final = "held_out.json"
_SAVE_SECONDS: Final = 60.0


def train_native(
    out: Path,
    budget: Budget,
    *,
    state: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    workers: int = 0,
    compile: bool = False,
    bfloat16: bool = False,
    batch_factor: float = 1.0,
    evaluate_count: int = 500,
    processes: int = 1,
    fresh: bool = False,
    quick: bool = False,
) -> None:
    """Train, export, evaluate and describe the native-resolution model.

    Called again, it goes on: with the training where the last saved state ends, then with the kinds
    that are not scored yet.

    Args:
        out: Folder of the checkpoint.
        budget: How long to train.
        state: Folder of the resumable state, ``out/state`` if None.
        device: ``cpu`` or ``cuda``.
        seed: Of weights and data; the shipped checkpoint has 0.
        threads: CPU threads of torch, its default if None.
        workers: Processes that draw batches.
        compile: Compile the layers of tower and decoder.
        bfloat16: Run forward passes under bfloat16 autocast.
        batch_factor: Factor on the tokens of a batch.
        evaluate_count: Held-out items per kind, 0 for none.
        processes: How many kinds are asked at a time.
        fresh: Discard a saved state.
        quick: A tiny model.
    """
    state = state or out / "state"
    trainer = train_state(
        state,
        budget,
        device=device,
        seed=seed,
        threads=threads,
        workers=workers,
        compile=compile,
        bfloat16=bfloat16,
        batch_factor=batch_factor,
        fresh=fresh,
        quick=quick,
    )
    export(trainer.model, build_processor(), out)
    write_log(trainer.log, out)
    if evaluate_count:
        metrics = score(Scoring(out, evaluate_count, seed, device, processes), state)
        metrics["training"] = describe_training(trainer)
        write_metrics(metrics, out)
        write_card(metrics, out)


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """Steps, prompts and time of both stages, and what it ran on."""
    stages = []
    for name in STAGES:
        lines = [line for line in trainer.log if line["stage"] == name]
        if lines:
            stages.append(
                {
                    "name": name,
                    "steps": sum(int(line["steps"]) for line in lines),
                    "images": sum(int(line["images"]) for line in lines),
                    "minutes": round(sum(float(line["seconds"]) for line in lines) / 60, 1),
                    "final": {k: v for k, v in lines[-1].items() if k not in ("stage", "step")},
                }
            )
    return {
        "seed": trainer.recipe.seed,
        **trainer.setting,
        "minutes": round(trainer.minutes, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "stages": stages,
    }


def train_state(
    state: Path,
    budget: Budget,
    *,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    workers: int = 0,
    compile: bool = False,
    bfloat16: bool = False,
    batch_factor: float = 1.0,
    fresh: bool = False,
    quick: bool = False,
    evaluate_batches: int = 8,
) -> Trainer:
    """Train from scratch or from the state in a folder to the end, and keep the state there.

    Args:
        state: Folder of the state; it is written about once a minute and at the end.
        budget: Of the whole run; if ``begin`` is 0 and there is a state, it begins where that
            ends.
        device: ``cpu`` or ``cuda``.
        seed: Of weights and data.
        threads: CPU threads of torch, its default if None.
        workers: Processes that draw batches.
        compile: Compile the layers of tower and decoder.
        bfloat16: Run forward passes under bfloat16 autocast.
        batch_factor: Factor on the tokens of a batch.
        fresh: Discard a saved state.
        quick: A tiny model.
        evaluate_batches: Held-out batches of each sort at the end, 0 for none.

    Returns:
        The trainer with the trained model.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    if fresh and state.exists():
        shutil.rmtree(state)
    recipe = planned(seed, batch_factor, quick)
    trainer = Trainer(recipe, device=device, compile=compile, bfloat16=bfloat16)
    if checkpoint.resume(trainer, state) and not budget.begin:
        budget = dataclasses.replace(budget, begin=trainer.progress)
    if budget.begin >= 1:
        return trainer
    trainer.setting = {
        "budget": {"minutes": budget.minutes, "steps": budget.steps},
        "device": device,
        "workers": workers,
        "batch_factor": batch_factor,
        "compile": compile,
        "bfloat16": bfloat16,
        **versions(),
    }
    _train(trainer, budget, workers, state)
    checkpoint.save(trainer, state)
    if evaluate_batches:
        _write_held_out(trainer, evaluate_batches, state)
    return trainer


def _write_held_out(trainer: Trainer, count: int, state: Path) -> None:
    score = trainer.held_out(count)
    (state / HELD_OUT).write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")


def _train(trainer: Trainer, budget: Budget, workers: int, state: Path) -> None:
    saved = trainer.minutes
    with tqdm(total=1.0, bar_format="{desc} {percentage:3.1f}% [{elapsed}]{postfix}") as bar:
        for line in trainer.run(budget, workers):
            bar.n = float(line["progress"])
            bar.set_description(str(line["stage"]), refresh=False)
            bar.set_postfix({name: line[name] for name in _SHOWN if name in line})
            logger.info("%s", line)
            if 60 * (trainer.minutes - saved) >= _SAVE_SECONDS:
                checkpoint.save(trainer, state)
                saved = trainer.minutes
