"""Information in the attention itself: which text tokens look at which part of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analysis.probing.information import joint_information
from analysis.probing.quantities.attention import AttentionQuantity
from analysis.probing.quantities.base import Reading, register


@dataclass(frozen=True)
class TextVisionInformation(AttentionQuantity):
    """Terms p(t) KL(p(v | t) || p(v)) of the text-vision block as a joint distribution."""

    units: ClassVar[str] = "nats"

    def terms(self, reading: Reading) -> Tensor:
        """(B, H or 1, N): information of each text query, NaN elsewhere."""
        attention, layout = reading.attention, reading.layout
        heads = attention.heads if reading.heads == "all" else 1
        shape = (layout.batch_size, heads, layout.length)
        terms = torch.full(shape, torch.nan, device=attention.device)
        parts = [
            (index, valid, reading.probabilities(index) * layout.vision[:, None, None])
            for index, valid in attention.blocks(layout.question)
        ]
        if not parts:
            return terms
        index, valid = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
        # (B, H, T, N) of all text queries; one number of each goes back to its place of (B, H, N)
        joint = torch.cat([rows for _, _, rows in parts], 2) * valid[:, None, :, None]
        values = torch.where(valid[:, None], joint_information(joint), torch.nan)
        return terms.scatter_(2, index[:, None].expand_as(values), values)


@register
@dataclass(frozen=True)
class AttentionInformation(TextVisionInformation):
    """Mutual information of the text-vision block: 0 if all text tokens look alike."""

    name: ClassVar[str] = "attention_information"
    definition: ClassVar[str] = (
        "I = sum p(t, v) log(p(t, v) / (p(t) p(v))), p = A over text queries t and vision keys v, "
        "normalised to sum to 1"
    )
    own_dims: ClassVar[tuple[str, ...]] = ()

    def measure(self, reading: Reading) -> Tensor:
        return reading.drop_heads(self.terms(reading).nansum(-1))


@register
@dataclass(frozen=True)
class AttentionInformationByToken(TextVisionInformation):
    """What each text token adds to the information of the block; the sum over them is I."""

    name: ClassVar[str] = "attention_information_by_token"
    definition: ClassVar[str] = "I_t = p(t) sum over v of p(v | t) log(p(v | t) / p(v))"
    own_dims: ClassVar[tuple[str, ...]] = ("key",)

    def measure(self, reading: Reading) -> Tensor:
        return reading.drop_heads(self.terms(reading))
