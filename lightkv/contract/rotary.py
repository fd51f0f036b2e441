"""Rotary embedding: queries and keys are rotated by angles that depend on their positions."""

from __future__ import annotations

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine (B or 1, N, d) of each token's angles."""


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate states (B, H, N, D) by angles of shape (B, 1, N, d), d <= D: the first d numbers.

    Number i is paired with number i + d / 2, as in all decoders that are supported.
    """
    width = cos.shape[-1]
    rotated = states[..., :width].float()
    half = torch.cat([-rotated[..., width // 2 :], rotated[..., : width // 2]], -1)
    result = rotated * cos.float() + half * sin.float()
    return torch.cat([result.to(states.dtype), states[..., width:]], -1)


def unrotate(keys: Tensor, rotary: Rotary) -> Tensor:
    """Keys (B, H, N, D) as they were before their rotary embedding, up to one factor for all."""
    cos, sin = rotary
    return rotate(keys, cos[:, None], -sin[:, None])


def logits_of_places(rotary: Rotary, width: int) -> Tensor:
    """(B or 1, N, N) scaled logits that queries and keys of ones would give at these places.

    Args:
        rotary: Angles of N tokens, the first d numbers of a head.
        width: D, numbers of a head; those beyond d are not rotated.
    """
    cos, sin = (part.float() for part in rotary)
    # Pairs (1, 1) rotated by p and q have the product 2 cos(p - q); both halves hold each angle.
    product = cos @ cos.transpose(1, 2) + sin @ sin.transpose(1, 2)
    logits: Tensor = (product + width - cos.shape[-1]) / width**0.5
    return logits
