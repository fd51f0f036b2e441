"""What stands around the vision tokens of a prompt, positions, and what the text may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lightkv.embedded.batches import seen_by_text
from lightkv.embedded.canvas import Canvas
from lightkv.embedded.qwen.architecture import FRAMES
from lightkv.embedded.qwen.containers import Batch
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
        rng: Says how fast a video is.
        sort: ``video`` puts a time stamp before every grid.
        grids: How many grids each picture or video has.
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
        count: Prompts ``B``.
        lengths: Words before, between and after the grids.
        grids: The canvas of each and the patches of it in use ``(B, K)``.
        device: Of the result.

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


def attention_inputs(batch: Batch) -> tuple[Tensor, Tensor]:
    """What the rows that predict text see, and the positions of all tokens.

    Returns:
        Mask ``(B, 1, T + 1, P + T)``, True where seen, and positions ``(B, 3, P + T)``.
    """
    grids = [(view.canvas, kept) for view in batch.views for kept in view.kept.unbind(1)]
    lengths = [part.shape[1] for part in batch.words]
    before = prefix_positions(len(batch), lengths, grids, batch.text.device)
    after = batch.position + before[:, :1, -1] + 1
    position = torch.cat([before, after[:, None].expand(-1, 3, -1)], 2)  # text: all axes alike
    return seen_by_text(batch.sees, before.shape[2]), position
