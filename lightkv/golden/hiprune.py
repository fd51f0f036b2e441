"""Replay of HiPrune reference cases: the tokens that the released code keeps of each tile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from lightkv.contract.layout import Grid, TokenKind, single_layout
from lightkv.contract.view import LayerView, VisionFeatures
from lightkv.pruning.hiprune import HiPrune


def replay(case: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Replay one case; one line per tile whose tokens differ.

    Args:
        case: The case's entry of the index.
        arrays: ``shallow`` and ``deep`` (tiles, 576), attention that each patch receives in the
            two layers, and the ``mask`` (tiles, 576) of what stays.
    """
    tiles, patches = arrays["shallow"].shape
    side = round(patches**0.5)
    layout = single_layout([int(TokenKind.VISION)] * tiles * patches, [Grid(1, side, side)] * tiles)
    received = torch.stack([torch.from_numpy(arrays[name]) for name in ("shallow", "deep")], -1)
    view = LayerView(
        layer=-1,
        layers=1,
        hidden=torch.zeros(1, layout.length, 1),
        layout=layout,
        sizes=torch.ones_like(layout.kind),
        vision=VisionFeatures(received=received.view(1, -1, 2), tile=layout.image),
    )
    method = HiPrune(
        tokens=int(arrays["retention"]) // tiles,
        alpha=float(arrays["alpha"]),
        object_layer=1,
        neighbours="raster",
    )
    kept = torch.zeros(tiles * patches, dtype=torch.bool)
    kept[method.reduce(view).index[0]] = True
    wanted = torch.from_numpy(arrays["mask"]).bool()
    return [
        f"tile {tile}: {int((ours != theirs).sum())} tokens differ"
        for tile, (ours, theirs) in enumerate(zip(kept.view_as(wanted), wanted, strict=True))
        if not torch.equal(ours, theirs)
    ]
