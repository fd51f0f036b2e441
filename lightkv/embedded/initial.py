"""Initial weights that the embedded models share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw_matrices(model: nn.Module) -> None:
    """Draw every matrix from a normal distribution with variance 1 / fan-in; biases become zero.

    Other vectors (weights of norms) stay as they are.
    """
    for name, weight in model.named_parameters():
        if weight.dim() >= 2:
            nn.init.normal_(weight, 0, weight[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)


@torch.no_grad()
def scale_outputs(model: nn.Module, names: tuple[str, ...], layers: int) -> None:
    """Divide the matrices that write into a residual stream by sqrt(2 depth).

    Args:
        model: Whose matrices.
        names: How the names of these matrices end.
        layers: Depth, the number of layers that write into the stream, each twice.
    """
    for name, weight in model.named_parameters():
        if name.endswith(names):
            weight.mul_(1 / math.sqrt(2 * layers))


def grid_embedding(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column of a square grid, ``(side ** 2, width)``."""
    frequency = 40 ** -(torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], -1)
    rows = wave[:, None].expand(-1, side, -1)
    columns = wave[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1).reshape(side * side, width)
