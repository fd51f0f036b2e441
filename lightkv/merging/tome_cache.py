"""ToMe (C): merge vision entries of the cache after prefill, layer by layer.

*Token Merging: Your ViT But Faster*, Bolya et al., ICLR 2023, arXiv 2210.09461, in the form that
LightKV compares with among the methods that act on a finished cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lightkv.contract.checks import check_ratios, require_vision
from lightkv.contract.compressor import Evictor, Observation
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.groups import gather_groups
from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.retention import Retention
from lightkv.contract.rotary import unrotate
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import UnsupportedError
from lightkv.merging.matching import match, merge_counts, reduction
from lightkv.merging.partition import everywhere
from lightkv.merging.weighting import size_importance, uniform_importance


@register("tome-cache")
@dataclass(frozen=True)
class ToMeCache(Evictor):
    """Merge vision entries of the cache after prefill, by the similarity of their keys.

    Every other vision entry proposes to merge into the one of the rest with the most similar key
    (mean over heads); the most similar proposals of each layer are carried out. Keys and values of
    a group are averaged as they are cached and sit at the target's position. Ties: lowest index
    first.

    Attributes:
        ratio: Share of the vision entries that merges away, at most 0.5.
        metric: Keys are compared "rotated", as they are cached, or "unrotated", as they were before
            the rotary embedding, so that places don't count.
        weighting: "uniform" averages a group plainly, "size" by the tokens its members stand for
            after a method that merged in prefill.
    """

    ratio: float = 0.5
    metric: Literal["rotated", "unrotated"] = "rotated"
    weighting: Literal["uniform", "size"] = "uniform"

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

    def needs_rotary(self) -> bool:
        """True where keys are compared unrotated."""
        return self.metric == "unrotated"

    def observe(self, view: EntriesView) -> Observation:
        """Keep the layer's keys, and as scores what its entries count for.

        Raises:
            UnsupportedError: If the view has no keys, or none whose rotary embedding can be undone.
        """
        if view.keys is None:
            raise UnsupportedError(f"layer {view.layer} has no cached keys to compare")
        sized = self.weighting == "size"
        importance = size_importance(view) if sized else uniform_importance(view)
        keys = view.keys.float()
        if self.metric == "unrotated":
            keys = unrotate(keys, view.read_rotary())
        claims = torch.zeros_like(importance[:, 0])
        return Observation(view.layout, importance, claims, keys.mean(1, keepdim=True))

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        """Merge every layer."""
        return [self._merge(observation) for observation in observations]

    def _merge(self, observation: Observation) -> Retention:
        layout = observation.layout
        if observation.keys is None or self.ratio == 0:
            return Retention.from_keep(layout.real, layout.prompt_lengths.float())
        groups = gather_groups(everywhere(layout).labels())
        merges = merge_counts(groups, self.ratio)
        pairs = match(observation.keys[:, 0], groups.to(layout.kind.device), merges)
        merged = reduction(layout, pairs, observation.score)
        left = merged.valid.sum(1).float()
        return Retention(merged.index[:, None], merged.valid[:, None], left, merge=merged)
