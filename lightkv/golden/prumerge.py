"""Replay of PruMerge reference cases: merged features in the released code's own order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.pruning.prumerge import Merging, PruMerge, PruMergePlus, merged, outliers

FEATURE_TOLERANCE = 1e-3
"""Of the largest feature: sums of 32 terms."""

_EIGHTH = 1 / 8
"""Share that the training path of the released code keeps."""


def replay(case: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Replay one case; one line per array that differs.

    Args:
        case: The case's entry of the index.
        arrays: ``features`` (576, C), the class token's attention to them, the keys of the last
            layer with its own first, and the features that four forms of the method make.
    """
    features, attention, keys = (
        torch.from_numpy(arrays[name])[None]
        for name in ("features", "cls_attention", "keys_with_cls")
    )
    whole = torch.ones(attention.shape, dtype=torch.bool)
    lines = []
    share = float(outliers(attention, whole).float().mean())
    if not np.isclose(share, float(arrays["outlier_ratio"])):
        lines.append(f"{share} of the patches are outliers, not {float(arrays['outlier_ratio'])}")
    row = torch.softmax(keys[0] @ torch.from_numpy(arrays["cls_query"]) / keys.shape[-1] ** 0.5, -1)
    lines += _far("attention of the class token", row[1:], attention[0])
    for name, method in (("prumerge", PruMerge()), ("prumerge_plus", PruMergePlus())):
        kept = _in_order(method, attention, whole)
        ours = _features(features, attention, keys[:, 1:], kept, method.neighbours)
        lines += _far(name, ours, torch.from_numpy(arrays[name]))
    top = _in_order(PruMerge(fixed=_EIGHTH), attention, whole)
    # Here the code samples without looking at what is there already.
    every = [*top, *range(4, attention.shape[1], 8)]
    for name, order in (("prumerge_eighth", top), ("prumerge_plus_eighth", every)):
        ours = _features(features, attention, keys[:, 1:], order, PruMerge().neighbours)
        lines += _far(name, ours, torch.from_numpy(arrays[name]))
    return lines


def _in_order(method: Merging, attention: Tensor, whole: Tensor) -> list[int]:
    """Patches that stay: by falling attention, then the sampled ones."""
    first = Merging.staying(method, attention, whole)[0]
    by_attention = sorted(first.nonzero()[:, 0].tolist(), key=lambda i: -float(attention[0, i]))
    stays = method.staying(attention, whole)[0]
    return [*by_attention, *(stays & ~first).nonzero()[:, 0].tolist()]


def _features(
    features: Tensor, attention: Tensor, keys: Tensor, order: list[int], neighbours: int
) -> Tensor:
    """(K + 1, C) features of the patches in this order, and of the extra token.

    A patch that is listed twice counts twice among the neighbours, its own double included, and the
    released code forgets as many of the first patches that don't stay.
    """
    others = [patch for patch in range(attention.shape[1]) if patch not in set(order)]
    listed = [*order, *others[len(order) - len(set(order)) :]]
    stays = (torch.arange(len(listed)) < len(order))[None]
    there = torch.ones_like(stays)
    features, attention, keys = features[:, listed], attention[:, listed], keys[:, listed]
    kept, extra = merged(features, attention, keys, stays, there, neighbours)
    return torch.cat([kept[0, : len(order)], extra])


def _far(what: str, ours: Tensor, theirs: Tensor) -> list[str]:
    if ours.shape != theirs.shape:
        return [f"{what}: shape {tuple(ours.shape)} instead of {tuple(theirs.shape)}"]
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    return [] if off <= FEATURE_TOLERANCE else [f"{what} differ by {off:.2g} of the largest"]
