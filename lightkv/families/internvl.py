"""InternVL: tiles of a fixed size next to each other, the thumbnail last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import InputError
from lightkv.families.base import Family
from lightkv.families.boxes import WHOLE, Box, pixels, tiled_with_whole
from lightkv.families.slots import Picture, Segment, runs
from lightkv.families.supply import Supply


class InternVL(Family):
    """InternVL: each tile is a grid of its own (how tiles are arranged is not in the inputs)."""

    model_types = ("internvl",)

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        return [len(grids) for grids in layout.grids]

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        if len(grids) == 1:
            return [WHOLE]
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
            get_optimal_tiled_canvas,
        )

        tile = tuple(pixels(image_processor.size, name) for name in ("height", "width"))
        fewest, most = image_processor.min_patches, image_processor.max_patches
        cols, rows = get_optimal_tiled_canvas(size, tile, fewest, most)
        return tiled_with_whole(rows, cols, len(grids))

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        side = math.isqrt(config.image_seq_length)
        tile = Segment(Grid(1, side, side))

        def supply(_: int, __: Tensor, slots: Tensor) -> list[Picture]:
            pictures = []
            # The start and end markers around an image separate it from the next.
            for start, end in runs(slots):
                if (end - start) % tile.tokens:
                    raise InputError(
                        f"an image of {end - start} vision tokens is not a whole number of tiles "
                        f"of {tile.tokens}; build the prompt with the model's own processor"
                    )
                pictures.append(Picture((tile,) * ((end - start) // tile.tokens)))
            return pictures

        return supply
