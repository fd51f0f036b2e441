"""Idefics3 and SmolVLM: tiles after row and column markers, the whole image last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import InputError
from lightkv.families.base import Family
from lightkv.families.boxes import WHOLE, Box, tiled_with_whole
from lightkv.families.slots import Picture, Segment, runs
from lightkv.families.supply import Supply


class Idefics3(Family):
    """Idefics3 and SmolVLM: each tile is a grid of its own, markers between them are separators.

    Tiles side by side, without markers, are tiles of one image.
    """

    model_types = ("idefics3", "smolvlm")

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        # Tiles lie in a dimension of their own, after that of the rows.
        return [1] * layout.batch_size

    def pictures_twice(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A row of the batch, then its tiles.
        return {name: torch.cat([value, value], 1) for name, value in inputs.items()}

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        if len(grids) == 1:
            return [WHOLE]
        _, rows, cols = image_processor.get_number_of_image_patches(*size)
        return tiled_with_whole(rows, cols, len(grids))

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        vision = config.vision_config
        side = int(vision.image_size // vision.patch_size // config.scale_factor)
        tile = Segment(Grid(1, side, side))

        def supply(_: int, ids: Tensor, slots: Tensor) -> list[Picture]:
            blocks = runs(slots)
            wrong = [end - start for start, end in blocks if (end - start) % tile.tokens]
            if wrong:
                raise InputError(
                    f"{wrong[0]} vision tokens in a row are not a whole number of tiles of "
                    f"{tile.tokens}; build the prompt with the model's own processor"
                )
            side_by_side = [(end - start) // tile.tokens for start, end in blocks]
            tiles = side_by_side[:1]
            for (_, end), (start, _), more in zip(
                blocks, blocks[1:], side_by_side[1:], strict=False
            ):
                if _another_image(ids[end:start].tolist()):
                    tiles.append(more)
                else:
                    tiles[-1] += more
            return [Picture((tile,) * count) for count in tiles]

        return supply


def _another_image(gap: list[int]) -> bool:
    """Whether the tokens between two tiles end an image.

    A tile starts with a marker and its name; an image ends with the same marker. Between two
    tiles of an image stand at most line breaks, then the next tile's marker and name.
    """
    return len(gap) > 2 and gap[0] == gap[-2]
