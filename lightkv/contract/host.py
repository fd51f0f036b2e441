"""Numbers that the host (the processor) reads: it waits for them once, then counts in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Consecutive numbers up to here are made once per device.
_MOST = 2**16


def on_host(values: Tensor) -> NDArray[Any]:
    """A tensor as an array; the host waits for it unless it is there already."""
    return (values.cpu() if values.device.type != "cpu" else values).numpy()


def all_on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype, moved to the host together."""
    flat = torch.cat([one.flatten() for one in tensors]).cpu()
    sizes = [one.numel() for one in tensors]
    parts = zip(torch.split(flat, sizes), tensors, strict=True)
    return [part.view(one.shape) for part, one in parts]


def on_device(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor; the host does not wait for what the device still has to do."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(device, non_blocking=True)


def consecutive(count: int, device: torch.device) -> Tensor:
    """(count,) int64: 0, 1, 2 and so on. It is shared: do not write into it."""
    if count > _MOST:
        return torch.arange(count, device=device)
    return _first_numbers(device)[:count]


def all_true(shape: Sequence[int], device: torch.device) -> Tensor:
    """A boolean tensor that is true everywhere. It is shared: do not write into it."""
    return _true(device).expand(*shape)


# What is made once has to serve where gradients flow too, so it is never made as part of inference.
@functools.cache
@torch.inference_mode(False)
def _first_numbers(device: torch.device) -> Tensor:
    return torch.arange(_MOST, device=device)


@functools.cache
@torch.inference_mode(False)
def _true(device: torch.device) -> Tensor:
    return torch.ones((), dtype=torch.bool, device=device)
