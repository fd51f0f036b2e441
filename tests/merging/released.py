"""The released merging rule written out token by token, as a reference case would record it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Spans = list[tuple[int, int]]


def window_labels(count: int, windows: int) -> list[int]:
    side = int(np.ceil(np.sqrt(count)))
    edges = np.cumsum([side // windows + (p < side % windows) for p in range(windows)])
    return [
        int(np.searchsorted(edges, t // side, "right")) * windows
        + int(np.searchsorted(edges, t % side, "right"))
        for t in range(count)
    ]


def merge_image(
    states: Tensor, weights: Tensor, windows: int, ratio: float
) -> tuple[Tensor, list[int], list[tuple[int, int, int]]]:
    """Merged states, kept tokens, and pairs (window, source, target) of one image."""
    labels = window_labels(len(states), windows)
    goes_to = list(range(len(states)))
    pairs = []
    for window in sorted(set(labels)):
        members = [t for t in range(len(states)) if labels[t] == window]
        share = torch.tensor(float(len(members))) * torch.tensor(ratio, dtype=torch.float32)
        proposals = []
        for source in members[0::2]:
            cosines = [
                float(
                    states[source]
                    @ states[target]
                    / (states[source].norm() * states[target].norm() + 1e-8)
                )
                for target in members[1::2]
            ]
            best = int(np.argmax(cosines))
            proposals.append((-cosines[best], source, members[1::2][best]))
        for _, source, target in sorted(proposals)[: min(int(share), len(members) // 2)]:
            goes_to[source] = target
            pairs.append((window, source, target))
    kept = [t for t in range(len(states)) if goes_to[t] == t]
    merged = []
    for t in kept:
        group = [s for s in range(len(states)) if goes_to[s] == t]
        if len(group) == 1:
            merged.append(states[t])
            continue
        total = max(float(weights[group].sum()), 1e-8)
        merged.append((weights[group, None] * states[group]).sum(0) / total)
    return torch.stack(merged), kept, pairs


def record(
    hidden: Tensor, logits: Tensor, spans: Spans, windows: int, ratio: float
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A one-stage case: its index entry and its arrays.

    Vision tokens are strung together and dealt into one block per image, all of one size; what is
    left of a block takes the place of its image.
    """
    inside = torch.zeros(len(hidden), dtype=torch.bool)
    for first, last in spans:
        inside[first : last + 1] = True
    weights = torch.softmax(logits, 1)[:, :, ~inside].sum((0, 2))
    size = int(inside.sum()) // len(spans)
    states, weights = hidden[inside].split(size), weights[inside].split(size)
    pieces, kept, pairs, spans_out, done = [], [], [], [], 0
    for number, (first, last) in enumerate(spans):
        merged, left, merges = merge_image(states[number], weights[number], windows, ratio)
        pieces += [hidden[done:first], merged]
        start = sum(len(piece) for piece in pieces) - len(merged)
        spans_out.append((start, start + len(merged) - 1))
        kept.append(left)
        pairs += [(number, *merge) for merge in merges]
        done = last + 1
    out = torch.cat([*pieces, hidden[done:]])
    arrays = {
        "s0_hidden_in": hidden.numpy(),
        "s0_attn": logits.numpy(),
        "s0_spans_in": np.array(spans),
        "s0_hidden_out": out.numpy(),
        "s0_kept": np.array(kept),
        "s0_spans_out": np.array(spans_out),
        "s0_pairs": np.array(pairs, dtype=np.int64).reshape(-1, 4),
        "s0_token_weight": torch.stack(weights).numpy(),
        "s0_window": np.array(window_labels(size, windows)),
    }
    if len(spans) == 1:
        goes_to = {source: target for _, _, source, target in pairs}
        rows = [[goes_to.get(token, token) == k for token in range(size)] for k in kept[0]]
        arrays["s0_source_sorted"] = np.array(rows, dtype=np.uint8)
    stage = {
        "w": windows,
        "ratio": ratio,
        "skipped": False,
        "S_in": len(hidden),
        "S_out": len(out),
        "spans_in": spans,
        "spans_out": spans_out,
    }
    return {"name": "made up", "tags": ["quirk"], "stages": [stage]}, arrays


def then_skipped(
    case: dict[str, Any], arrays: dict[str, np.ndarray], windows: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The case with a second stage that finds too few tokens for its windows."""
    spans, hidden = arrays["s0_spans_out"], arrays["s0_hidden_out"]
    heads = len(arrays["s0_attn"])
    second = {
        "s1_hidden_in": hidden,
        "s1_attn": np.zeros((heads, len(hidden), len(hidden)), hidden.dtype),
        "s1_spans_in": spans,
        "s1_hidden_out": hidden,
        "s1_kept": np.arange(len(hidden)),
        "s1_spans_out": spans,
    }
    stage = {
        **case["stages"][0],
        "w": windows,
        "skipped": True,
        "S_in": len(hidden),
        "S_out": len(hidden),
        "spans_in": spans.tolist(),
        "spans_out": spans.tolist(),
    }
    return {**case, "stages": [*case["stages"], stage]}, {**arrays, **second}
