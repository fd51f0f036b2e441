"""How fast a machine draws and trains the native-resolution model, before it is trained there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from lightkv.embedded.qwen.containers import Batch, View
from lightkv.embedded.qwen.recipe import Recipe
from lightkv.embedded.qwen.stream import Budget, Draws, batches
from lightkv.embedded.qwen.trainer import Trainer

PARTS: Final = {"vision": 0.0, "language, vision tokens left out": 0.6, "language, all": 0.95}
"""Parts of the run that are measured, and at which share of it they stand."""
_ENDLESS: Final = 1e9
_WARM: Final = 3
_PROFILED: Final = 3
_SHOWN: Final = 5
_NAME: Final = 90


def rates(
    recipe: Recipe,
    *,
    device: str,
    workers: int,
    compile: bool,
    bfloat16: bool,
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Measure the machine; nothing is written.

    Args:
        recipe: Whose batches and model.
        device: ``cpu`` or ``cuda``.
        workers: Processes that draw batches.
        compile: Compile the layers of tower and decoder.
        bfloat16: Run forward passes under bfloat16 autocast.
        seconds: How long each part is measured after it has warmed up.

    Yields:
        The machine; how many batches a second the workers draw alone; then for every part of the
        run steps and prompts (pictures, for the tower) a second, the share of time that the
        training waited for batches, on a GPU the peak memory in GB, and what took most of
        the time: the five most expensive kernels and calls of the host, in milliseconds a step.
    """
    torch.set_float32_matmul_precision("high")
    cuda = device == "cuda"
    gpu = torch.cuda.get_device_name() if cuda else None
    yield {"torch": torch.__version__, "cores": os.cpu_count(), "gpu": gpu, "workers": workers}
    yield _drawn(recipe, workers, seconds)
    for part, begin in PARTS.items():
        trainer = Trainer(recipe, device=device, compile=compile, bfloat16=bfloat16)
        yield {"part": part} | _trained(trainer, begin, workers, seconds)


def _drawn(recipe: Recipe, workers: int, seconds: float) -> dict[str, Any]:
    source = _source(recipe, PARTS["language, all"], workers, torch.device("cpu"))
    next(source)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(source)
        count += 1
    rate = count / (time.perf_counter() - began)
    return {"part": "batches drawn", "batches_per_second": round(rate, 2)}


def _trained(trainer: Trainer, begin: float, workers: int, seconds: float) -> dict[str, Any]:
    cuda = trainer.device.type == "cuda"
    source = _source(trainer.recipe, begin, workers, trainer.device)
    trainer.progress = begin
    began = time.perf_counter()
    for _ in range(_WARM):
        trainer.train_step(next(source).to(trainer.device))
    _wait(cuda)
    warm = time.perf_counter() - began
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    steps, prompts, waited, began = 0, 0, 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - asked
        prompts += len(batch.pixels if isinstance(batch, View) else batch)
        trainer.train_step(batch.to(trainer.device))
        _wait(cuda)
        steps += 1
    spent = time.perf_counter() - began
    peak = round(torch.cuda.max_memory_allocated() / 1e9, 1) if cuda else None
    return {
        "warm_up_seconds": round(warm, 2),
        "steps_per_second": round(steps / spent, 2),
        "prompts_per_second": round(prompts / spent, 1),
        "waited_share": round(waited / spent, 2),
        "peak_gb": peak,
        **_most_expensive(trainer, source),
    }


def _most_expensive(trainer: Trainer, source: Iterator[View | Batch]) -> dict[str, Any]:
    """Kernels and calls of the host that take most milliseconds of a step by themselves."""
    cuda = trainer.device.type == "cuda"
    drawn = [next(source).to(trainer.device) for _ in range(_PROFILED)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as measured:
        for batch in drawn:
            trainer.train_step(batch)
        _wait(cuda)
    host: dict[str, float] = {}
    kernels: dict[str, float] = {}
    for event in measured.key_averages():
        name = event.key[:_NAME]
        if event.device_type.name == "CPU":
            host[name] = host.get(name, 0.0) + event.self_cpu_time_total
        else:
            kernels[name] = kernels.get(name, 0.0) + event.self_device_time_total
    return {"kernel_ms": _largest(kernels), "host_ms": _largest(host)}


def _largest(microseconds: dict[str, float]) -> dict[str, float]:
    most = sorted(microseconds, key=lambda name: -microseconds[name])[:_SHOWN]
    return {name: round(microseconds[name] / _PROFILED / 1e3, 2) for name in most}


def _source(
    recipe: Recipe, begin: float, workers: int, device: torch.device
) -> Iterator[View | Batch]:
    return batches(Draws(recipe, Budget(minutes=_ENDLESS, begin=begin), 0), workers, device)


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
