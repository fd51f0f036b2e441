"""Replay of reference cases of MixKV on SnapKV, with its scores and kept sets."""

from __future__ import annotations

from typing import Any

from lightkv.catalogue import method
from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.eviction.methods.keydiff import unit_keys
from lightkv.golden.caches import (
    Arrays,
    Case,
    compare_kept,
    compare_numbers,
    evicting,
    tensor,
    view,
)

MODES: dict[str, dict[str, Any]] = {
    "attn": {"mode": "attention"},
    "keydiff": {"mode": "diversity"},
    "mixkv": {"mode": "plain"},
    "headwisemixkv": {"mode": "headwise"},
    "vnorm": {"mode": "importance"},
    "headwisemixkv_groupmax": {"mode": "headwise", "joining": "max"},
}


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    queries, keys, values = (tensor(arrays[name]) for name in ("queries", "keys", "values"))
    attention = ProjectedAttention(queries, keys, queries.shape[3] ** -0.5)
    layer = view(keys, attention, values)
    window, capacity = int(arrays["window"]), int(arrays["capacity"])
    unit, mean = unit_keys(layer)
    similarity = (unit * mean).sum(3)[..., : keys.shape[2] - window]
    lines = compare_numbers("similarity", similarity, arrays["similarity"])
    options = {"window": window, "kernel": int(arrays["kernel"]), "entries": capacity}
    for name, mode in MODES.items():
        compressor = evicting(method("mixkv", **options, **mode), protect_last=0)
        retention = compressor.retain([compressor.observe(layer)])[0]
        lines += compare_kept(f"kept_{name}", retention, tensor(arrays[f"kept_{name}"])[None])
    return lines
