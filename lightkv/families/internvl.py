"""InternVL: tiles of a fixed size next to each other, the thumbnail last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import InputError
from lightkv.families.base import Family, Supply
from lightkv.families.slots import Picture, Segment, runs


class InternVL(Family):
    """InternVL: each tile is a grid of its own (how tiles are arranged is not in the inputs)."""

    model_types = ("internvl",)

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        return [len(grids) for grids in layout.grids]

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        side = math.isqrt(config.image_seq_length)
        tile = Segment(Grid(1, side, side))

        def supply(_: int, __: Tensor, slots: Tensor) -> list[Picture]:
            pictures = []
            # The start and end markers around an image separate it from the next.
            for start, end in runs(slots):
                if (end - start) % tile.tokens:
                    raise InputError(
                        f"an image of {end - start} vision tokens is no whole number of tiles of "
                        f"{tile.tokens}; build the prompt with the model's own processor"
                    )
                pictures.append(Picture((tile,) * ((end - start) // tile.tokens)))
            return pictures

        return supply
