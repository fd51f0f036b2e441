"""What a training batch holds, and how it moves to a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from lightkv.embedded.canvas import Canvas

Sort = Literal["picture", "legend", "video", "pair", "text"]


class OnDevice:
    """Tensors that move together."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        moved: Self = _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved

    def pin_memory(self) -> Self:
        """The same in memory that a GPU can copy by itself."""
        pinned: Self = _mapped(self, Tensor.pin_memory)
        return pinned


@dataclass(frozen=True)
class View(OnDevice):
    """One picture of every prompt, or the steps of one video.

    Attributes:
        canvas: The size of each.
        pixels: ``(B, S, H, W, 3)`` bytes; each of the S steps stands for two equal frames.
        kept: ``(B, S, K)``, the patches in use.
        labels: Per-patch supervision, each ``(B, S, N)``.
    """

    canvas: Canvas
    pixels: Tensor
    kept: Tensor
    labels: dict[str, Tensor]


@dataclass(frozen=True)
class Batch(OnDevice):
    """One training batch; columns of the text as in the square model's batches.

    Attributes:
        sort: What it is about; ``text`` alone shows nothing.
        views: In the order of the prompt.
        words: Token ids ``(B, L)`` before, between and after the grids of vision tokens.
    """

    sort: Sort
    views: tuple[View, ...]
    words: tuple[Tensor, ...]
    text: Tensor
    target: Tensor
    turn: Tensor
    sees: Tensor
    position: Tensor
    kind: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.text)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(entry, change) for entry in value)
    if isinstance(value, View | Batch):
        changed = {f.name: _mapped(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **changed)
    return value
