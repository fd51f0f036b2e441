"""LLaVA-NeXT: a base grid, then the image's tiles stitched to one grid with line breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import QuestionWords, VisionFeatures
from lightkv.families.base import Family
from lightkv.families.boxes import WHOLE, Box, centred, pixels
from lightkv.families.clip_tower import clip_features, has_class_token
from lightkv.families.llava import tile_side
from lightkv.families.slots import Picture, Segment
from lightkv.families.supply import Supply, from_queues, read_input


class LlavaNext(Family):
    """LLaVA-NeXT (1.6): base tile s x s, then high-resolution rows with a line break each."""

    model_types = ("llava_next",)

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        if not bool((inputs["input_ids"] == config.image_token_id).any()):
            return from_queues({})
        sizes = read_input(inputs, "image_sizes").tolist()
        pictures = [tiled(config, (height, width)) for height, width in sizes]
        return from_queues({config.image_token_id: pictures})

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        return [WHOLE, stitched_box(image_processor, size, grids[0].rows)]

    def vision_features(
        self,
        model: Any,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
        names: frozenset[str],
        words: QuestionWords | None = None,
    ) -> VisionFeatures:
        config = model.config
        if not has_class_token(config):
            return VisionFeatures()
        pixels = inputs["pixel_values"]
        patches: list[Tensor] = []
        tiles: list[int] = []
        for height, width in read_input(inputs, "image_sizes").tolist():
            patch, used = patches_of(config, (height, width))
            before = sum(tiles) * tile_side(config) ** 2
            patches.append(torch.where(patch >= 0, patch + before, -1))
            tiles.append(used)
        if pixels.dim() == 5:
            # Images of fewer tiles are padded to the longest of the batch.
            pixels = torch.cat([tile[:used] for tile, used in zip(pixels, tiles, strict=True)])
        return clip_features(model, pixels, layout, names, torch.cat(patches), words)


def patches_of(config: Any, size: tuple[int, int]) -> tuple[Tensor, int]:
    """Which patch each vision token of an image is.

    Args:
        config: Of the model.
        size: (height, width) of the image in pixels.

    Returns:
        (tokens,) int64, patches counted over the image's tiles (the base tile first) in raster
        order, -1 for a line break; and the number of tiles.
    """
    side, tile = tile_side(config), config.vision_config.image_size
    canvas = canvas_of(size, config.image_grid_pinpoints)
    high, wide = canvas[0] // tile, canvas[1] // tile
    tiles = 1 + high * wide
    number = torch.arange(tiles * side * side).view(tiles, side, side)
    # (high, side, wide, side): tiles side by side as one map of (high side, wide side) patches
    finer = number[1:].view(high, wide, side, side).transpose(1, 2)
    stitched_map = finer.reshape(high * side, wide * side)
    rows, cols = stitched(size, config.image_grid_pinpoints, tile, side)
    top, left = (high * side - rows) // 2, (wide * side - cols) // 2
    seen = stitched_map[top : top + rows, left : left + cols]
    lines = torch.cat([seen, torch.full((rows, 1), -1)], 1)
    return torch.cat([number[0].flatten(), lines.flatten()]), tiles


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
    height, width = size
    canvas = canvas_of(size, pinpoints)
    rows, cols = canvas[0] // tile * side, canvas[1] // tile * side
    if width / height > cols / rows:
        used = int(round(height * (cols / width), 7))
        return rows - 2 * ((rows - used) // 2), cols
    used = int(round(width * (rows / height), 7))
    return rows, cols - 2 * ((cols - used) // 2)


def stitched_box(image_processor: Any, size: tuple[int, int], side: int) -> Box:
    """What the stitched tiles show: the picture, and what is left of the padding around it.

    Args:
        image_processor: Of the model.
        size: (height, width) of the picture in pixels.
        side: Patches along a side of a tile.
    """
    pinpoints = image_processor.image_grid_pinpoints
    settings = (getattr(image_processor, "crop_size", None), image_processor.size)
    names = ("height", "shortest_edge")
    tile = next(filter(None, (pixels(one, name) for one in settings for name in names)))
    canvas = canvas_of(size, pinpoints)
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    rows, cols = stitched(size, pinpoints, tile, side)
    shown = (rows * tile / side, cols * tile / side)
    return centred((size[0] * scale, size[1] * scale), shown)


def canvas_of(size: tuple[int, int], pinpoints: Sequence[Sequence[int]]) -> tuple[int, int]:
    """(height, width) in pixels of the canvas that an image of (height, width) is fitted into."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size, [list(point) for point in pinpoints])
    return int(height), int(width)
