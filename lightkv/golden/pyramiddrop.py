"""Replay of PyramidDrop reference cases: one stage, what is left and its new positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.view import LayerView, PromptInputs
from lightkv.pruning.pyramiddrop import PyramidDrop


def replay(case: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Replay one case; one line per difference.

    Args:
        case: The case's entry of the index.
        arrays: ``last_query`` (H, d) and ``keys`` (H, n, d) of the ranking layer, where the vision
            tokens are and how many there once were, and what the released code made of them.
    """
    keys = torch.from_numpy(arrays["keys"])[None]
    length, width = keys.shape[2:]
    start, current = int(arrays["start"]), int(arrays["current_vision"])
    text = length - start - current
    layout = _layout(start, current, text)
    queries = torch.zeros_like(keys)
    queries[0, :, -1] = torch.from_numpy(arrays["last_query"])
    ratios, stage = tuple(arrays["ratios"].tolist()), int(arrays["stage"])
    method = PyramidDrop(layers=tuple(range(1, len(ratios) + 1)), ratios=ratios)
    before = _layout(start, int(arrays["original_vision"]), text)
    view = LayerView(
        layer=method.stage_layers_of(len(ratios) + 2)[stage],
        layers=len(ratios) + 2,
        hidden=torch.zeros(1, length, 1),
        layout=layout,
        sizes=torch.ones_like(layout.kind),
        attention=ProjectedAttention(queries, keys, width**-0.5),
        inputs=PromptInputs(torch.zeros(1, before.length, 1), before),
    )
    kept = method.reduce(view).index[0]
    left = int(layout.vision[0][kept].sum())
    lines = []
    if left != int(arrays["keep_vision"]):
        lines.append(f"{left} vision tokens left instead of {int(arrays['keep_vision'])}")
    if kept.tolist() != arrays["kept"].tolist():
        lines.append(f"kept {kept.tolist()} instead of {arrays['kept'].tolist()}")
    if method.position_rule() != "reindex" or arrays["position_ids"].tolist() != [
        *range(len(kept))
    ]:
        lines.append("positions are not those of a sequence that never had the rest")
    return lines


def _layout(system: int, vision: int, text: int) -> TokenLayout:
    kinds = [TokenKind.SYSTEM] * system + [TokenKind.VISION] * vision + [TokenKind.TEXT] * text
    return single_layout(list(map(int, kinds)), [Grid(1, 1, vision)])
