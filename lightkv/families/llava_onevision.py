"""LLaVA-OneVision: tiles as in LLaVA-NeXT up to a limit, plain images in a series, pooled video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid
from lightkv.families.base import Family
from lightkv.families.boxes import WHOLE, Box, centred
from lightkv.families.llava import tile_side
from lightkv.families.llava_next import stitched, stitched_box
from lightkv.families.slots import Picture, Segment
from lightkv.families.supply import Supply, from_queues, read_input


class LlavaOnevision(Family):
    """LLaVA-OneVision: one image is tiled, several lie on one grid each, videos on a pooled one."""

    model_types = ("llava_onevision",)

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        standing = self.placeholders(config, inputs)
        queues = {}
        if config.image_token_id in standing:
            sizes = read_input(inputs, "image_sizes").tolist()
            counts = inputs.get("batch_num_images")
            per_row = [1] * len(sizes) if counts is None else counts.tolist()
            alone = [count == 1 for count in per_row for _ in range(count)]
            queues[config.image_token_id] = [
                tiled_to_limit(config, (height, width)) if single else _plain(config)
                for (height, width), single in zip(sizes, alone, strict=True)
            ]
        if config.video_token_id in standing:
            videos, frames = read_input(inputs, "pixel_values_videos").shape[:2]
            queues[config.video_token_id] = [_video(config, frames)] * videos
        return from_queues(queues)

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        if len(grids) == 1:
            # One of several pictures: padded to a square.
            return [centred(size, (max(size), max(size)))]
        return [WHOLE, stitched_box(image_processor, size, grids[0].rows)]


def tiled_to_limit(config: Any, size: tuple[int, int]) -> Picture:
    """Base tile and stitched tiles of a single image of (height, width) pixels."""
    side = tile_side(config)
    rows, cols = stitched(size, config.image_grid_pinpoints, config.vision_config.image_size, side)
    # Above the limit (10 % tolerance) the stitched features are scaled down.
    limit = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    excess = math.sqrt(rows * cols / (limit * side**2))
    if excess > 1.1:
        rows, cols = int(rows // excess), int(cols // excess)
    return Picture((Segment(Grid(1, side, side)), Segment(Grid(1, rows, cols), "rows")))


def _plain(config: Any) -> Picture:
    side = tile_side(config)
    return Picture((Segment(Grid(1, side, side), "end"),))


def _video(config: Any, frames: int) -> Picture:
    side = math.ceil(tile_side(config) / 2)
    return Picture((Segment(Grid(frames, side, side), "end"),))
