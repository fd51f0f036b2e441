"""The shortened sequence of a prefill: what reducers made of the prompt so far.

Hidden states are reduced once, right after a stage; everything else that a layer receives per
token (rotary embeddings, positions, masks, added vision features) arrives at full length at every
layer and is cut to the survivors there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightkv.contract.compressor import Positions
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.rotary import Rotary
from lightkv.engine.masks import as_mask, shortened_mask

Full = TypeVar("Full")


@dataclass(frozen=True)
class Processed:
    """What one layer of a prefill processed.

    Attributes:
        layout: Layout of its tokens.
        before: What the layers before the last stage processed; None for the prompt itself.
        stage: The reduction that turned ``before`` into these tokens; None for the prompt itself.
        shortfall: (B,) int64 as in :class:`Shortening`, or None.
    """

    layout: TokenLayout
    before: Processed | None = None
    stage: Reduction | None = None
    shortfall: Tensor | None = None

    @cached_property
    def provenance(self) -> Reduction | None:
        """Which tokens of the prompt each of them stands for, None for the prompt itself."""
        earlier = None if self.before is None else self.before.provenance
        return self.stage if earlier is None or self.stage is None else earlier.then(self.stage)


class Shortening:
    """State of one prefill, for B rows of N positions.

    ``shortfall`` (B,) int64 is how many positions fewer than in the prompt have been given out,
    where tokens after the prompt go on from the renumbered ones.

    Args:
        layout: Layout of the prompts.
        additive: Dtype of additive masks, None for boolean ones.
        text_rotary: Cosine and sine (1, N, d) of consecutive text positions, where renumbered
            tokens can't take over those of their index.
    """

    def __init__(
        self, layout: TokenLayout, additive: torch.dtype | None, text_rotary: Rotary | None
    ) -> None:
        self.layout = layout
        self.pending: Reduction | None = None
        self.processed = Processed(layout)
        self._states: Tensor | None = None
        self.shortfall: Tensor | None = None
        self._prompt = layout.prompt_lengths
        self._padding = (~layout.real).sum(1, keepdim=True)
        self._additive = additive
        self._text_rotary = text_rotary
        self._source: Tensor | None = None
        self._renumbered = False
        self._sizes: Tensor | None = None
        # What was cut since the last stage: all layers are handed the same full-length tensors.
        self._cut: dict[int, tuple[Any, Any]] = {}

    @property
    def total(self) -> Reduction | None:
        """All stages so far as one, None before the first."""
        return self.processed.provenance

    @property
    def sizes(self) -> Tensor:
        """(B, K) int64: original tokens that each token stands for."""
        if self._sizes is None:
            self._sizes = self.layout.real.long()
        return self._sizes

    def reduce(
        self, reduction: Reduction, positions: Positions, states: Tensor | None = None
    ) -> None:
        """Apply a reduction to all later layers.

        Args:
            reduction: Of the tokens as they are.
            positions: Which rotary positions survivors take.
            states: (B, K, D) hidden states of the survivors, where the method makes them itself.
        """
        self.pending = reduction
        self._states = states
        self._sizes = reduction.summed(self.sizes)
        self._cut = {}
        index, valid = reduction.index, reduction.valid
        self.layout = self.layout.select(index, valid, filled=reduction.filled)
        if positions != "keep":
            left = self.layout.prompt_lengths
            self.shortfall = self._prompt - left if positions == "reindex" else None
            # Renumbered from each row's first real token.
            order = self.layout.real.long().cumsum(1) - 1
            self._source = self._padding + order.clamp_min(0)
            self._renumbered = True
        elif self._source is None:
            self._source = reduction.index
        else:
            self._source = self._source.gather(1, reduction.index)
        self.processed = Processed(self.layout, self.processed, reduction, self.shortfall)

    def inputs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Inputs of a layer after a stage; unchanged before the first."""
        source = self._source
        if source is None:
            return args, kwargs
        hidden = args[0]
        if self.pending is not None:
            hidden = self.pending.apply(hidden) if self._states is None else self._states
            self.pending = self._states = None
        cut = dict(kwargs)
        rotary = kwargs.get("position_embeddings")
        if rotary is not None:
            embeddings = self._once(rotary, lambda full: self._rotary(full, source))
            cut["position_embeddings"] = embeddings
        if kwargs.get("position_ids") is not None:
            ids = self._once(kwargs["position_ids"], lambda full: _pick(full, source))
            cut["position_ids"] = ids
        cut["attention_mask"] = self._once(kwargs.get("attention_mask"), self._mask)
        return (hidden, *args[1:]), cut

    def two_way_mask(self) -> Tensor:
        """(B, 1, N, N) mask under which every token sees every other that is not padding."""
        real = self.layout.real[:, None, None, :]
        length = self.layout.length
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        return as_mask(real | itself, self._additive)

    def _once(self, full: Full, make: Callable[[Full], Full]) -> Full:
        """What is made of a full-length tensor, once for all layers that are handed the same."""
        if id(full) not in self._cut:
            self._cut[id(full)] = full, make(full)  # held, so that its number stays its own
        made: Full = self._cut[id(full)][1]
        return made

    def _mask(self, full: Tensor | None) -> Tensor | None:
        if full is None and not self.layout.padded:
            return None
        total = self.total
        if total is None:
            return full
        return shortened_mask(full, total.index, total.valid, self._additive)

    def _rotary(self, full: Rotary, source: Tensor) -> Rotary:
        if self._renumbered and self._text_rotary is not None:
            cos, sin = (part.to(full[0]) for part in self._text_rotary)
            source = (source - self._padding).clamp_min(0)
            return _pick(cos, source), _pick(sin, source)
        return _pick(full[0], source), _pick(full[1], source)

    def shorten_features(self, features: Tensor) -> Tensor:
        """Full-length features (B, N, D) merged as the tokens they belong to, (B, K, D)."""
        if self.total is None:
            return features
        return replace(self.total, rule="mean").apply(features)


class LayerAdditions:
    """Vision features that the decoder adds after its first layers (deepstack).

    The decoder adds them at full length, so it may do so only up to the first stage; after it
    they are added here, merged like their tokens.

    Args:
        kwargs: The decoder's keyword arguments.
        first_stage: First layer after which the sequence may be shortened, None for never.
    """

    def __init__(self, kwargs: dict[str, Any], first_stage: int | None) -> None:
        self._features: list[Tensor] = list(kwargs.get("deepstack_visual_embeds") or ())
        self._where: Tensor | None = kwargs.get("visual_pos_masks")
        self._added_by_model = len(self._features) if first_stage is None else first_stage + 1

    def decoder_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments that leave the decoder the layers up to the first stage."""
        if self._added_by_model >= len(self._features):
            return kwargs
        return {**kwargs, "deepstack_visual_embeds": self._features[: self._added_by_model]}

    def added(self, layer: int, hidden: Tensor, shortening: Shortening) -> Tensor:
        """A layer's output (B, K, D) with the features that belong after it."""
        if layer >= len(self._features) or self._where is None:
            return hidden
        full = torch.zeros(
            *self._where.shape, hidden.shape[-1], dtype=hidden.dtype, device=hidden.device
        )
        full[self._where.to(hidden.device)] = self._features[layer].to(full)
        return hidden + shortening.shorten_features(full)

    def is_ours(self, layer: int) -> bool:
        """True if the decoder does not add this layer's features itself."""
        return self._added_by_model <= layer < len(self._features)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Values (B or 1, N, ...) at ``index`` (B, K)."""
    index = index.to(values.device)
    values = values.expand(index.shape[0], *values.shape[1:])
    tail = values.shape[2:]
    # (B, K) as (B, K, 1, ...), then as wide as the values: (B, K, ...)
    return values.gather(1, index.view(*index.shape, *[1] * len(tail)).expand(*index.shape, *tail))
