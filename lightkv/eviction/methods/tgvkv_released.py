"""TGV-KV as its released code runs it, where no option of a part expresses the difference.

The rounding of the budget, the prompts that are left alone, and the reading of a prompt as one
block of vision tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightkv.contract.compressor import Observation
from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.contract.registry import register
from lightkv.contract.view import EntriesView
from lightkv.eviction.evictor import Evicting, require
from lightkv.eviction.parts.allocation import Allocation
from lightkv.eviction.parts.decoding import EvictOne
from lightkv.eviction.parts.selections import TextFirst
from lightkv.eviction.parts.text_grounded import TextVision, TextWeighted


@dataclass(frozen=True)
class ReleasedTextVision(TextVision):
    """Text-Vision Budgeting with the released arithmetic.

    The *drop* counts are rounded (half to even, in float32) and clipped at zero; what a layer
    can't use is lost.  A prompt without text after the image has budgets 0/0 and is left alone.

    Attributes:
        seen: Tokens of the conversation so far; None for the length of the prompt.
    """

    seen: int | None = None
    needs_question: ClassVar[bool] = False

    def decide(
        self,
        strengths: Sequence[Tensor],
        nominal: Tensor,
        lengths: Tensor,
        floors: Tensor,
        redistribute: bool,
    ) -> Allocation:
        forget = forget_share(torch.stack(list(strengths), 1), nominal, lengths)
        seen = lengths if self.seen is None else torch.full_like(lengths, self.seen)
        left_alone = forget.isnan() | untouched(lengths, nominal / lengths * seen)
        dropped = torch.where(left_alone, 0, drop_counts(forget, lengths))
        entries = torch.maximum(lengths - dropped, floors)
        share = 1 - forget  # what decode reads back: not a number, or above 1, never evicts
        # A prompt that is left alone was asked for a share as any other.
        requested = torch.where(left_alone, nominal, share.double() * lengths)
        least = torch.where(left_alone, lengths, 0)
        return Allocation(entries, requested, torch.where(left_alone, torch.nan, share), least)


def forget_share(strengths: Tensor, nominal: Tensor, lengths: Tensor) -> Tensor:
    """Share (B, L) float32 of its entries that each layer drops, below 0 where it has too few.

    One minus layers x retention x the layer's share of the strengths, in float32 as the code
    stores it; not a number where nothing has any strength. (Where layers differ in length, which
    the code never meets, the shares are of each layer's own entries.)
    """
    per_layer = (nominal.sum(1, keepdim=True) / lengths.double()).float()
    share = strengths / strengths.sum(1, keepdim=True)
    return 1 - per_layer * share


def drop_counts(forget: Tensor, lengths: Tensor) -> Tensor:
    """Entries (B, L) int64 to drop: rounded half to even in float32, never below 0."""
    return (forget.nan_to_num() * lengths.float()).round().clamp_min(0).long()


def untouched(lengths: Tensor, allowed: Tensor) -> Tensor:
    """Prompts that the released code leaves alone: less than one entry is to be dropped."""
    return (lengths.double() - allowed).trunc() <= 0


def one_block(layout: TokenLayout) -> TokenLayout:
    """The layout as the released code reads it: one image, from the first vision token on.

    The block is as long as there are vision tokens, so with several images the text between them
    counts as vision and the last vision tokens count as text.
    """
    slot = layout.real.cumsum(1) - 1
    start = torch.where(layout.vision, slot, layout.length).amin(1, keepdim=True)
    stop = start + layout.vision.sum(1, keepdim=True)
    kind = torch.where(slot < start, int(TokenKind.SYSTEM), int(TokenKind.VISION))
    kind = torch.where(slot < stop, kind, int(TokenKind.TEXT))
    kind = torch.where(layout.real, kind, int(TokenKind.PADDING))
    return replace(layout, kind=kind)


@dataclass(frozen=True)
class ReleasedTGVKV(Evicting):
    """TGV-KV reading every prompt as one block of vision tokens between two blocks of text."""

    def check_layout(self, layout: TokenLayout) -> None:
        # A prompt without text after the image is left alone, not refused.
        require(layout.vision, type(self).__name__, "a vision token (an image)")

    def observe(self, view: EntriesView) -> Observation:
        return super().observe(replace(view, layout=view.layout.once(one_block)))


def released(retention: float, *, protect_first: int = 4, protect_last: int = 1) -> Evicting:
    """The published code, case by case: its ranking, arithmetic and decoding."""
    return ReleasedTGVKV(
        ReleasedTextVision(),
        TextWeighted(text_scope="all", normalise=False),
        TextFirst("text"),
        retention,
        decode=EvictOne(protect_first),
        protect_first=protect_first,
        protect_last=protect_last,
        redistribute=False,
    )


@register("tgvkv-released", fixed=("redistribute", "protect_system"))
def tgvkv_released(retention: float) -> Evicting:
    """TGV-KV as in the released code, which also evicts one entry per decode step."""
    return released(retention)
