"""What stands around the vision tokens of a prompt, and the positions of all tokens before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lightkv.embedded.canvas import Canvas
from lightkv.embedded.qwen.architecture import FRAMES
from lightkv.embedded.vocabulary import PREFIX_IDS, VISION_END, VISION_START, encode

FRAME_RATES: Final = (1, 2, 4, 8, 24)
"""Frames a second that training tells the model."""


def time_stamp(step: int, rate: float) -> str:
    """What stands before a step of a video: the mean time of its two frames, in words."""
    seconds = f"{(FRAMES * step + (FRAMES - 1) / 2) / rate:.1f}"
    return f"< {' '.join(seconds)} seconds >"


def prompt_words(rng: np.random.Generator, sort: str, grids: Sequence[int]) -> list[list[int]]:
    """Token ids before, between and after the grids of vision tokens.

    Args:
        rng: says how fast a video is.
        sort: ``video`` puts a time stamp before every grid.
        grids: how many grids each picture or video has.
    """
    rate = FRAME_RATES[rng.integers(len(FRAME_RATES))] if sort == "video" else 0
    words: list[list[int]] = [list(PREFIX_IDS)]
    for steps in grids:
        for step in range(steps):
            stamp = encode(time_stamp(step, rate)) if rate else []
            words[-1] += [*stamp, *encode(VISION_START)]
            words.append(encode(VISION_END))
    return words


def prefix_positions(
    count: int,
    lengths: Sequence[int],
    grids: Sequence[tuple[Canvas, Tensor]],
    device: torch.device | None = None,
) -> Tensor:
    """Rotary positions of everything before the text.

    Args:
        count: prompts ``B``.
        lengths: words before, between and after the grids.
        grids: the canvas of each and the patches of it in use ``(B, K)``.
        device: of the result.

    Returns:
        ``(B, 3, P)``, time, height and width. A word takes one position on all axes; a grid
        stands at one time and takes as many positions as its longer side has patches.
    """
    parts = []
    start = 0
    for length, grid in zip(lengths, (*grids, None), strict=True):
        parts.append(torch.arange(start, start + length, device=device).expand(count, 3, length))
        start += length
        if grid is not None:
            canvas, kept = grid
            row, column = kept // canvas.columns, kept % canvas.columns
            parts.append(torch.stack([torch.zeros_like(row), row, column], 1) + start)
            start += max(canvas.rows, canvas.columns)
    return torch.cat(parts, 2)
