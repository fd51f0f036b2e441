"""Products of queries and keys in half precision, summed in float32, for GPUs that do so quickly.

The product of two numbers of half precision is exact in float32, so only the order of the sums
differs from that of widened numbers, as it does between processors. Off by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from lightkv.errors import UnsupportedError

_HALF = ContextVar("half_products", default=False)


@contextmanager
def half_products() -> Iterator[None]:
    """Inside, scores of a half-precision model on CUDA come from products in its own precision."""
    token = _HALF.set(True)
    try:
        yield
    finally:
        _HALF.reset(token)


def half_is_asked(keys: Tensor) -> bool:
    """True inside :func:`half_products`.

    Raises:
        UnsupportedError: If the keys are not in half precision, or not on CUDA.
    """
    if not _HALF.get():
        return False
    if keys.device.type != "cuda" or keys.dtype not in (torch.bfloat16, torch.float16):
        raise UnsupportedError(
            "products in half precision need a model in bfloat16 or float16 on CUDA; these keys "
            f"are {str(keys.dtype).removeprefix('torch.')} on {keys.device.type}"
        )
    return True


def half_product(queries: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """(B, H, T, N) float32 of queries (B, H, T, d) and keys (B, H, N, d) in half precision."""
    shape = *queries.shape[:3], keys.shape[2]
    transposed = keys.flatten(0, 1).transpose(1, 2)
    product = torch.bmm(queries.flatten(0, 1), transposed, out_dtype=torch.float32)
    return product.mul_(scaling).view(shape)
