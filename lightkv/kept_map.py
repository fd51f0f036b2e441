"""From what a layer's cache holds back to the pixels of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError
from lightkv.families.boxes import Box


@dataclass(frozen=True)
class PicturePlace:
    """Where the tokens of one picture lie on it.

    Attributes:
        height, width: Of the picture, in pixels.
        segments: Of its token grids, as the record's layout counts them.
        boxes: The area that each of them shows; it may reach beyond the picture where that was
            padded, or leave out an edge that was cut off.
    """

    height: int
    width: int
    segments: tuple[int, ...]
    boxes: tuple[Box, ...]


def held_shares(record: RunRecord, layer: int) -> Tensor:
    """(N,) float32: per token of the prompt the share of KV heads that hold an entry for it.

    A token that was merged into another one in prefill counts as that one does. What is averaged
    into a kept entry after prefill (LOOK-M and the like) counts as evicted.

    Raises:
        InvalidValueError: If there is no such layer.
    """
    if not isinstance(layer, int) or not 0 <= layer < len(record.layers):
        raise InvalidValueError("layer", layer, f"from 0 to {len(record.layers) - 1}")
    one, length = record.layers[layer], record.layout.length
    kept = one.kept.view(-1, one.kept.shape[-1])  # (K,) or (G, K) -> (G, K), -1 is padding
    held = torch.zeros(len(kept), length + 1)
    held.scatter_(1, torch.where(kept >= 0, kept, length), 1.0)
    shares = held[:, :length].mean(0)
    if one.provenance is None:
        return shares
    slot = one.provenance.target[0]  # (N,), -1 where the token was dropped
    place = one.provenance.index[0][slot.clamp_min(0)]
    return torch.where(slot >= 0, shares[place], 0.0)


def kept_maps(record: RunRecord, layer: int, places: Sequence[PicturePlace]) -> list[Tensor]:
    """Per picture (height, width) float32: the share of KV heads that hold what a pixel shows.

    Where several tokens show a pixel (a tile and the whole picture), their mean; NaN where none
    does. Frames of a video are averaged.

    Args:
        record: Of the run.
        layer: 0-based decoder layer.
        places: Of the pictures, in prompt order.

    Raises:
        InvalidValueError: If there is no such layer.
    """
    shares = held_shares(record, layer)
    return [
        torch.stack(
            [
                _painted(_cells(record, shares, segment), box, place.height, place.width)
                for segment, box in zip(place.segments, place.boxes, strict=True)
            ]
        ).nanmean(0)
        for place in places
    ]


def _cells(record: RunRecord, shares: Tensor, segment: int) -> Tensor:
    """(rows, columns): shares of the tokens of one grid, NaN where a cell has none."""
    layout = record.layout
    grid = layout.grids[0][segment]
    cells = torch.full((grid.frames, grid.rows, grid.cols), torch.nan)
    # Line breaks lie beyond the last column.
    inside = (layout.segment[0] == segment) & (layout.col[0] < grid.cols)
    where = [axis[0][inside] for axis in (layout.frame, layout.row, layout.col)]
    cells[where[0], where[1], where[2]] = shares[inside]
    return cells.nanmean(0)


def _painted(cells: Tensor, box: Box, height: int, width: int) -> Tensor:
    """(height, width): the cell that each pixel's centre lies in, NaN outside the box."""
    left, top, right, bottom = box
    rows = _cell_of(height, top, bottom, cells.shape[0])
    columns = _cell_of(width, left, right, cells.shape[1])
    # (rows, columns) -> (rows + 1, columns + 1): what lies outside comes last.
    framed = torch.nn.functional.pad(cells, (0, 1, 0, 1), value=torch.nan)
    return framed[rows[:, None], columns[None, :]]


def _cell_of(pixels: int, start: float, end: float, cells: int) -> Tensor:
    """(pixels,) int64: number of the cell along one axis, ``cells`` where there is none."""
    centres = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
    number = ((centres - start) / (end - start) * cells).floor().long()
    return torch.where((number >= 0) & (number < cells), number, cells)
