"""LLaVA-NeXT: a base grid, then the image's tiles stitched to one grid with line breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.families.base import Family, Supply, from_queues, read_input
from lightkv.families.llava import tile_side
from lightkv.families.slots import Picture, Segment
from lightkv.layout import Grid


class LlavaNext(Family):
    """LLaVA-NeXT (1.6): base tile s x s, then high-resolution rows with a line break each."""

    model_types = ("llava_next",)

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        if not bool((inputs["input_ids"] == config.image_token_id).any()):
            return from_queues({})
        sizes = read_input(inputs, "image_sizes").tolist()
        pictures = [tiled(config, (height, width)) for height, width in sizes]
        return from_queues({config.image_token_id: pictures})


def tiled(config: Any, size: tuple[int, int]) -> Picture:
    """Base tile and stitched tiles of an image of (height, width) pixels."""
    side = tile_side(config)
    rows, cols = stitched(size, config.image_grid_pinpoints, config.vision_config.image_size, side)
    return Picture((Segment(Grid(1, side, side)), Segment(Grid(1, rows, cols), "rows")))


def stitched(
    size: tuple[int, int], pinpoints: Sequence[Sequence[int]], tile: int, side: int
) -> tuple[int, int]:
    """Rows and columns of the stitched tiles after the padding of the aspect ratio is cut.

    Args:
        size: (height, width) of the image in pixels.
        pinpoints: Allowed (height, width) of the canvas in pixels.
        tile: Pixels along a side of a tile.
        side: Patches along a side of a tile.
    """
    from transformers.image_processing_utils import select_best_resolution

    height, width = size
    canvas = select_best_resolution((height, width), [list(p) for p in pinpoints])
    rows, cols = canvas[0] // tile * side, canvas[1] // tile * side
    if width / height > cols / rows:
        used = int(round(height * (cols / width), 7))
        return rows - 2 * ((rows - used) // 2), cols
    used = int(round(width * (rows / height), 7))
    return rows, cols - 2 * ((cols - used) // 2)
