"""Fuyu: no vision encoder; rows of patches, each row closed by a line-break token of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import UnsupportedError
from lightkv.families.base import Family
from lightkv.families.boxes import Box, pixels
from lightkv.families.slots import Picture, Segment, runs
from lightkv.families.supply import Supply


class Fuyu(Family):
    """Fuyu: encoder-free; vision tokens of an image are not contiguous."""

    model_types = ("fuyu",)
    has_encoder = False
    grid_follows_picture = True

    def row_pixels(
        self, config: Any, inputs: Mapping[str, Tensor], layout: TokenLayout
    ) -> list[list[Tensor]]:
        pixels = inputs.get("pixel_values")
        flat = {} if pixels is None else {"pixel_values": pixels.flatten(0, -2)}
        return super().row_pixels(config, {**inputs, **flat}, layout)

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        # One patch for each vision token.
        return layout.vision.sum(1).tolist()

    def pictures_twice(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise UnsupportedError(
            "Fuyu's patches are numbered within their prompt and can't be shown a second time"
        )

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        limits = [pixels(image_processor.size, name) or 1 for name in ("height", "width")]
        patch = [pixels(image_processor.patch_size, name) or 1 for name in ("height", "width")]
        scale = min(1.0, *(limit / side for limit, side in zip(limits, size, strict=True)))
        height, width = (int(side * scale) for side in size)
        # Patches continue into the padding at the right and at the bottom.
        return [
            (0.0, 0.0, grid.cols * patch[1] / width, grid.rows * patch[0] / height)
            for grid in grids
        ]

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        return _rows


def _rows(_: int, ids: Tensor, slots: Tensor) -> list[Picture]:
    """Rows of equal width with one and the same token between them are one image."""
    rows: list[int] = []
    widths: list[int] = []
    last_break, previous = -1, -1
    for start, end in runs(slots):
        line_break = int(ids[end]) if end < len(ids) else -1
        same = start == previous + 1 and line_break == last_break
        if rows and same and widths[-1] == end - start:
            rows[-1] += 1
        else:
            rows.append(1)
            widths.append(end - start)
        last_break, previous = line_break, end
    grids = [Grid(1, count, width) for count, width in zip(rows, widths, strict=True)]
    return [Picture((Segment(grid),), closing=1) for grid in grids]
