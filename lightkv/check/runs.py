"""What ``lightkv check`` runs: one loaded model, or the whole zoo."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightkv.check.checks import run_checks
from lightkv.check.report import Report
from lightkv.check.subject import Subject
from lightkv.vlm import VLM

if TYPE_CHECKING:
    from lightkv.check.tiny.model import TinyModel

KERNELS = ("sdpa", "eager")


def check_model(vlm: VLM) -> Report:
    """Check a loaded model with its own processor, on pictures of different shapes."""
    rows, batch = _questions(vlm)
    outcomes = {
        "one": run_checks(Subject(vlm, rows[:1], rows[0])),
        "padded": run_checks(Subject(vlm, rows, batch)),
    }
    return Report(vlm.name, type(vlm.model).__name__, vlm.attention, outcomes)


def check_zoo() -> Iterator[Report]:
    """Check a tiny model of every family under both kernels."""
    from lightkv.check.tiny import ZOO

    for entry in ZOO.values():
        for kernel in KERNELS:
            yield check_tiny(entry.build(kernel), entry)


def check_tiny(vlm: VLM, entry: TinyModel) -> Report:
    """Check a tiny model, or a larger one of its family, with the tiny model's prompts."""
    from lightkv.check.tiny.model import stack

    rows = [_placed(vlm, row) for row in entry.rows(vlm.model.config)]
    outcomes = {
        "one": run_checks(Subject(vlm, rows[:1], rows[0])),
        "padded": run_checks(Subject(vlm, rows, _placed(vlm, stack(rows)))),
    }
    return Report(vlm.name, type(vlm.model).__name__, vlm.attention, outcomes)


@dataclass(frozen=True)
class Cost:
    """What one generation took.

    Attributes:
        method: The compressor, by name.
        prompt: Tokens of the prompt.
        held: Share of the cache held after prefill.
        seconds: Wall time of prefill and 16 tokens.
        peak: Largest memory in use on a CUDA device, bytes; None elsewhere.
    """

    method: str
    prompt: int
    held: float
    seconds: float
    peak: int | None


def generation_costs(vlm: VLM, entry: TinyModel, pictures: int = 48) -> Iterator[Cost]:
    """Generate 16 tokens under no method, LightKV, TGV-KV and both."""
    from lightkv import TGVKV, LightKV
    from lightkv.merging.schedule import scaled

    row = _placed(vlm, entry.row_about(vlm.model.config, pictures))
    schedule = scaled(vlm.facts.layers)
    merge = LightKV(schedule.layers, (1,) * len(schedule.layers), schedule.ratios)
    evict = TGVKV(retention=0.2)
    methods = {"none": None, "lightkv": merge, "tgvkv": evict, "lightkv | tgvkv": merge | evict}
    cuda = vlm.device.type == "cuda"
    # Untimed: attaches the graph and warms up both ways.
    for method in (None, methods["lightkv | tgvkv"]):
        vlm.generate(row, method, max_new_tokens=2, do_sample=False)
    for name, method in methods.items():
        if cuda:
            torch.cuda.reset_peak_memory_stats(vlm.device)
        start = time.perf_counter()
        done = vlm.generate(row, method, max_new_tokens=16, min_new_tokens=16, do_sample=False)
        if cuda:
            torch.cuda.synchronize(vlm.device)
        seconds = time.perf_counter() - start
        peak = int(torch.cuda.max_memory_allocated(vlm.device)) if cuda else None
        record = done.records[0]
        yield Cost(name, record.layout.length, record.achieved_retention, seconds, peak)


def _placed(vlm: VLM, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A prompt on the model's device, its floating-point inputs in the model's dtype."""
    return {
        name: value.to(vlm.device, vlm.dtype if value.is_floating_point() else value.dtype)
        for name, value in row.items()
    }


def _questions(vlm: VLM) -> tuple[list[Any], Any]:
    """Processed requests, one by one and as a batch."""
    from lightkv import Request
    from lightkv.embedded.questions import items
    from lightkv.prompting import read_image

    shapes = ((320, 240), (240, 320), (300, 300))
    requests: list[Request] = []
    for item, shape in zip(items("where", 3, seed=0), shapes, strict=True):
        picture = read_image(item.image).resize(shape)
        longer = f"{item.question} " * (1 + len(requests))
        requests.append(Request((picture,), longer.strip()))
    return [vlm.encode([request]) for request in requests], vlm.encode(requests)
