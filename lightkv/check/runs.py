"""What ``lightkv check`` runs: one loaded model, or the whole zoo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightkv.check.checks import run_checks
from lightkv.check.report import Report
from lightkv.check.subject import Subject
from lightkv.vlm import VLM

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
    from lightkv.check.prompts import stack
    from lightkv.check.zoo import ZOO

    for name, entry in ZOO.items():
        for kernel in KERNELS:
            vlm = entry.build(kernel)
            rows = entry.rows(vlm.model.config)
            outcomes = {
                "one": run_checks(Subject(vlm, rows[:1], rows[0])),
                "padded": run_checks(Subject(vlm, rows, stack(rows))),
            }
            yield Report(name, type(vlm.model).__name__, kernel, outcomes)


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
