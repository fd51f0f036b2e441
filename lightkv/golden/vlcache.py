"""Replay of reference cases of VL-Cache, in all settings of the port that was run."""

from __future__ import annotations

import itertools

import torch

from lightkv.catalogue import method
from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.view import LayerView
from lightkv.golden.caches import (
    Arrays,
    Case,
    compare_kept,
    compare_numbers,
    evicting,
    last_rows,
    tensor,
    view,
)


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    views = _layers(arrays)
    lines: list[str] = []
    for window, heads, layers in itertools.product(
        ("same", "own"), ("shared", "heads"), ("layers", "uniform")
    ):
        setting = f"window{window}_{heads}_{layers}"
        made = method(
            "vl-cache",
            float(arrays["retention"]),
            per_head=heads == "heads",
            adaptive=layers == "layers",
            window=window,
            form="released",
        )
        compressor = evicting(made, protect_last=0)
        seen = [compressor.observe(one) for one in views]
        if layers == "layers":
            density = torch.cat([one.strength for one in seen])
            lines += compare_numbers("sparsity", 1 - density, arrays["sparsity"])
        for layer, retention in enumerate(compressor.retain(seen)):
            wanted = tensor(arrays[f"kept_{setting}"][layer])[None]
            lines += compare_kept(f"kept_{setting}, layer {layer}", retention, wanted)
    return lines


def _layers(arrays: Arrays) -> list[LayerView]:
    """Layers whose last rows are given; everything before them counts as vision."""
    rows = tensor(arrays["attention"])  # (L, H, P, N)
    kv_heads = int(arrays["kv_heads"])
    keys = torch.zeros(1, kv_heads, rows.shape[3], 1)
    group = rows.shape[1] // kv_heads
    of_layers = [GivenAttention(last_rows(layer[None]), group=group) for layer in rows]
    return [view(keys, attention, text=rows.shape[2]) for attention in of_layers]
