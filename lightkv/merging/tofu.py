"""ToFu: prune where the network is far from linear, merge without losing norm where it is not.

*Token Fusion: Bridging the Gap between Token Pruning and Token Merging*, Kim et al., WACV 2024,
arXiv 2312.01026, in the decoder and with LightKV's stages, as LightKV compares with it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch

from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.merging.matching import Pairs
from lightkv.merging.tome import ToMe


@register("tofu")
@dataclass(frozen=True)
class ToFu(ToMe):
    """ToMe's matching; early stages drop the sources, late ones merge them by MLERP.

    MLERP is the mean of the group, rescaled to the largest norm among its members.

    Attributes: those of :class:`~lightkv.merging.staged.GlobalMerge` and
        switch: Share of the layers up to which a stage prunes.
        norm: "mean" rescales the mean (paper); "target" divides by the norm of the old target
            instead, as the ports do, so that the result can exceed the largest norm.
    """

    switch: float = 0.5
    norm: Literal["mean", "target"] = "mean"

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages and parameters out of range."""
        super().check(facts)
        if not 0 <= self.switch <= 1:
            raise InvalidValueError("switch", self.switch, "from 0 to 1")

    def merged(self, view: LayerView, pairs: Pairs) -> Reduction:
        """Drop the sources up to the switch, fuse them by MLERP after it."""
        if view.layer <= math.floor(self.switch * view.layers):
            keep = view.layout.real.clone()
            keep.view(-1)[pairs.source] = False
            return Reduction.from_keep(keep)
        fused = super().merged(view, pairs)
        if self.norm == "mean":
            return dataclasses.replace(fused, rule="norm-preserving")
        return _over_target(fused, view)


def _over_target(fused: Reduction, view: LayerView) -> Reduction:
    """Weights of a group times its largest norm over the norm of its target."""
    norms = view.hidden.norm(dim=-1, dtype=torch.promote_types(view.hidden.dtype, torch.float32))
    largest = norms.new_zeros(norms.shape[0], fused.new_length + 1)
    largest.scatter_reduce_(1, fused.slot, norms, "amax")
    target = torch.nn.functional.pad(norms.gather(1, fused.index), (0, 1), value=1.0)
    merged = torch.nn.functional.pad(fused.sizes() > 1, (0, 1))
    factor = torch.where(merged, largest / target.clamp_min(1e-12), 1)
    return dataclasses.replace(fused, weight=fused.weight * factor.gather(1, fused.slot))
