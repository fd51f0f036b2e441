"""Replay of reference cases of KVzip as kvpress keeps, which counts the sinks among the entries."""

from __future__ import annotations

import torch

from lightkv.contract.compressor import Observation
from lightkv.eviction.methods.kvzip import Competition, KVzip
from lightkv.golden.caches import Arrays, Case, compare_masks, tensor
from lightkv.golden.kvzip import layout_of

WITHIN: dict[str, Competition] = {"all": "model", "layer": "layer"}


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    scores, sinks = tensor(arrays["score"]), int(arrays["sinks"])
    layers, heads, length = scores.shape
    layout = layout_of(sinks, length - sinks)
    seen = [Observation(layout, score[None], torch.ones(1)) for score in scores]
    lines: list[str] = []
    for removed in ("0.5", "0.8"):
        for name, over in WITHIN.items():
            together = layers * heads if over == "model" else heads
            evicted = int(together * length * float(removed))
            context = together * (length - sinks)
            retentions = KVzip((context - evicted) / context, over).retain(seen)
            wanted = tensor(arrays[f"valid_{name}_{removed}"])[..., sinks:]
            lines += compare_masks(f"valid_{name}_{removed}", retentions, wanted, sinks)
    return lines
