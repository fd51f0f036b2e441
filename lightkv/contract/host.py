"""Numbers that the host reads: it waits once for many of them, then counts without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(values: Tensor) -> NDArray[Any]:
    """A tensor as an array; the host waits for it unless it is there already."""
    return (values.cpu() if values.device.type != "cpu" else values).numpy()


def all_on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype, moved to the host in one go."""
    flat = torch.cat([one.flatten() for one in tensors]).cpu()
    sizes = [one.numel() for one in tensors]
    parts = zip(torch.split(flat, sizes), tensors, strict=True)
    return [part.view(one.shape) for part, one in parts]
