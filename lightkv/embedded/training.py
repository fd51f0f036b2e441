"""The whole training command as a function."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lightkv.embedded import plan as plans
from lightkv.embedded.card import write_card
from lightkv.embedded.evaluate import Answerer, evaluate
from lightkv.embedded.plan import Plan
from lightkv.embedded.publish import export, versions, write_log, write_metrics
from lightkv.embedded.trainer import Trainer

_SHOWN = ("loss", "color", "kind", "where", "read", "count")


def train_embedded(
    out: Path,
    plan: Plan | None = None,
    *,
    state: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    compile: bool = True,
    save_every: int = 200,
    evaluate_count: int = 500,
    fresh: bool = False,
    quick: bool = False,
) -> None:
    """Train, export, evaluate and describe a model for square pictures.

    Args:
        out: Folder of the checkpoint.
        plan: Which model, the embedded LLaVA if None.
        state: Folder of the resumable state, ``out/state`` if None.
        device: ``cpu`` or ``cuda``.
        seed: Of weights and data; the shipped checkpoint has 0.
        threads: CPU threads, torch's default if None.
        compile: Compile the forward passes (about a minute per shape, then faster).
        save_every: Steps between saved states.
        evaluate_count: Held-out items per kind, 0 for none.
        fresh: Discard a saved state.
        quick: A tiny model and a few steps.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    state = state or out / "state"
    if fresh and state.exists():
        shutil.rmtree(state)
    plan = plan or plans.square()
    recipe = dataclasses.replace(plan.quick if quick else plan.shipped, seed=seed)
    trainer = Trainer(recipe, state, device=device, compile=compile, save_every=save_every)
    trainer.resume()
    _train(trainer)
    export(trainer.student.model, plan.processor(), out)
    write_log(trainer.log, out)
    if evaluate_count:
        metrics = evaluate(Answerer.load(out, device), evaluate_count, seed)
        metrics["training"] = describe_training(trainer, device)
        write_metrics(metrics, out)
        write_card(metrics, out, recipe, plan.texts)


def _train(trainer: Trainer) -> None:
    total = sum(stage.steps for stage in trainer.recipe.stages)
    done = sum(stage.steps for stage in trainer.recipe.stages[: trainer.stage_index])
    with tqdm(total=total, initial=done + trainer.step, unit="step") as bar:
        for line in trainer.run():
            before = 0
            for stage in trainer.recipe.stages:
                if stage.name == line["stage"]:
                    break
                before += stage.steps
            bar.n = before + int(line["step"])
            bar.set_description(str(line["stage"]), refresh=False)
            bar.set_postfix({name: line[name] for name in _SHOWN if name in line})


def describe_training(trainer: Trainer, device: str) -> dict[str, Any]:
    """Steps, pictures and time of every stage, and what it ran on."""
    stages = []
    for stage in trainer.recipe.stages:
        lines = [line for line in trainer.log if line["stage"] == stage.name]
        stages.append(
            {
                "name": stage.name,
                "steps": stage.steps,
                "batch": stage.batch,
                "images": sum(int(line["images"]) for line in lines),
                "minutes": round(sum(float(line["seconds"]) for line in lines) / 60, 1),
                "final": {k: v for k, v in lines[-1].items() if k not in ("stage", "step")},
            }
        )
    return {
        "seed": trainer.recipe.seed,
        "device": device,
        "threads": torch.get_num_threads(),
        **versions(),
        "parameters": sum(p.numel() for p in trainer.student.model.parameters()),
        "stages": stages,
    }
