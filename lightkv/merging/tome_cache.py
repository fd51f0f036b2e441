"""ToMe (C): merge vision entries of the cache after prefill, layer by layer.

*Token Merging: Your ViT But Faster*, Bolya et al., ICLR 2023, arXiv 2210.09461, in the form that
LightKV compares with among the methods that act on a finished cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightkv.contract.checks import check_ratios, require_vision
from lightkv.contract.compressor import Evictor, LayerView, ModelFacts, Observation, Retention
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.groups import gather_groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.errors import UnsupportedError
from lightkv.merging.matching import match, merge_counts, reduction, split_alternate
from lightkv.merging.partition import everywhere


@register("tome-cache")
@dataclass(frozen=True)
class ToMeCache(Evictor):
    """Merge vision entries of the cache after prefill, by the likeness of their keys.

    Every other vision entry proposes to merge into the one of the rest with the most similar key
    (mean over heads, after the rotary embedding); the most similar proposals of each layer are
    carried out. Keys and values of a group are averaged plainly and sit at the target's position.
    Ties: lowest index first.

    Attributes:
        ratio: Share of the vision entries that merges away, at most 0.5.
    """

    ratio: float = 0.5

    def decode_policy(self) -> DecodePolicy:
        """New entries are appended."""
        return Grow()

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """None: keys decide."""
        return ()

    def check(self, facts: ModelFacts) -> None:
        """Refuse a ratio out of range."""
        check_ratios((self.ratio,), 1)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image."""
        require_vision(layout)

    def observe(self, view: LayerView) -> Observation:
        """Keep the layer's keys.

        Raises:
            UnsupportedError: If the view has none.
        """
        if view.keys is None:
            raise UnsupportedError(f"layer {view.layer} has no cached keys to compare")
        nothing = torch.zeros(view.layout.kind.shape, device=view.keys.device)
        mean = view.keys.float().mean(1, keepdim=True)
        return Observation(view.layout, nothing, nothing[:, 0], mean)

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        """Merge every layer."""
        return [self._merge(observation) for observation in observations]

    def _merge(self, observation: Observation) -> Retention:
        layout = observation.layout
        if observation.keys is None or self.ratio == 0:
            return Retention.from_keep(layout.real, layout.prompt_lengths.float())
        groups = gather_groups(everywhere(layout).labels())
        merges = merge_counts(groups.counts, self.ratio)
        pairs = match(observation.keys[:, 0], *split_alternate(groups), merges)
        merged = reduction(layout, pairs, torch.ones_like(observation.score))
        left = merged.valid.sum(1).float()
        return Retention(merged.index[:, None], merged.valid[:, None], left, merge=merged)
