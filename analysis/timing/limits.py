"""What a machine can do at best: arithmetic of matrix products, and bytes from memory."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from analysis.timing.latency import now

_ROUNDS = 5


@dataclass(frozen=True)
class Limits:
    """Measured on one device.

    Attributes:
        flops: Floating-point operations per second of a large matrix product.
        bandwidth: Bytes per second that a sum over a large tensor reads.
    """

    flops: float
    bandwidth: float


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Medians of a few rounds, after one that is not counted."""
    side, numbers = (8192, 2**30) if device.type == "cuda" else (1024, 2**26)
    with torch.inference_mode():
        left = torch.randn(side, side, dtype=dtype, device=device)
        product = _seconds(functools.partial(torch.matmul, left, left), device)
        del left
        # Read as bytes of whole words, so that the sum itself takes no time.
        values = torch.zeros(numbers // 4, dtype=torch.float32, device=device)
        reading = _seconds(values.sum, device)
    return Limits(2 * side**3 / product, numbers / reading)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(_ROUNDS + 1):
        start = now(device)
        call()
        times.append(now(device) - start)
    return statistics.median(times[1:])
