"""How alike two tokens are."""

from __future__ import annotations

from torch import Tensor

# Added to the product of norms in the cosine, as in the released code: a zero vector is unlike all.
EPSILON = 1e-8


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine similarity (..., A, B) of vectors (..., A, D) and (..., B, D).

    The feature divergence of LightKV Eq. 5 is 1 minus this.
    """
    outer: Tensor = left.norm(dim=-1)[..., :, None] * right.norm(dim=-1)[..., None, :]
    return left @ right.transpose(-1, -2) / (outer + EPSILON)
