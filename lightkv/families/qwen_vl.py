"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: native resolution, patches merged, three-axis rotary."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import InputError
from lightkv.families.base import Family
from lightkv.families.slots import Picture, Segment
from lightkv.families.supply import Supply, from_queues, read_input


class QwenVL(Family):
    """Qwen2-VL and Qwen2.5-VL: any aspect ratio; videos are grids of frames, rows and columns."""

    model_types: tuple[str, ...] = ("qwen2_vl", "qwen2_5_vl")
    one_axis = False
    grid_follows_picture = True
    takes_videos = True
    # Without it positions are one-dimensional, without any error.
    required_inputs = ("mm_token_type_ids",)

    def placeholders(self, config: Any, inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
        """As in other families.

        Raises:
            InputError: If ``mm_token_type_ids`` says that a word is part of a video.
        """
        standing = super().placeholders(config, inputs)
        types = inputs.get("mm_token_type_ids")
        video = config.video_token_id
        if types is not None and video not in standing:
            word = inputs["input_ids"] == video
            if bool(word.any()) and bool(types[word].any()):
                raise InputError(
                    f"token {video} stands for a video, but video_grid_thw is missing; pass on "
                    "everything the processor returns, or leave the mark out of the question"
                )
        return standing

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        merge = int(config.vision_config.spatial_merge_size)
        standing = self.placeholders(config, inputs)
        queues = {}
        for token, name in (
            (config.image_token_id, "image_grid_thw"),
            (config.video_token_id, "video_grid_thw"),
        ):
            if token in standing:
                extents = read_input(inputs, name).tolist()
                queues[token] = [
                    Picture((Segment(Grid(frames, rows // merge, cols // merge)),))
                    for frames, rows, cols in extents
                ]
        return from_queues(queues)

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        # Patches of all pictures in a row, as many as each grid has before merging.
        grids = read_input(inputs, "image_grid_thw" if name == "pixel_values" else "video_grid_thw")
        patches = iter(grids.prod(1).tolist())
        counts = super().pixel_counts(inputs, layout, name, token)
        return [sum(itertools.islice(patches, count)) for count in counts]

    def positions_taken(self, layout: TokenLayout) -> Tensor:
        saved = [sum(grid.cells - self._positions(grid) for grid in row) for row in layout.grids]
        return layout.prompt_lengths - torch.tensor(saved, device=layout.kind.device)

    def _positions(self, grid: Grid) -> int:
        """Positions of a picture: as many as its longest side, not one for each token."""
        return max(grid.frames, grid.rows, grid.cols)

    def text_rotary(self, model: Any, length: int) -> tuple[Tensor, Tensor] | None:
        device = model.get_input_embeddings().weight.device
        return self.rotary_at(model, torch.arange(length, device=device)[None], 0)

    def rotary_at(self, model: Any, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        # A text token has the same position on all three axes.
        return super().rotary_at(model, positions.expand(3, *positions.shape), layer)

    def rotary_shift(self, model: Any) -> Tensor | None:
        # A picture takes fewer positions than tokens; the model remembers how many fewer.
        shift: Tensor = model.model.rope_deltas
        return shift.clone()

    def later_positions(self, index: Tensor, shift: Tensor | None) -> Tensor:
        if shift is None:
            return index
        # The index for masks, then the same position on all three axes.
        return torch.cat([index[None], (index + shift.to(index)).expand(3, *index.shape)])


class Qwen3VL(QwenVL):
    """Qwen3-VL: as Qwen2.5-VL, with vision features added after the first layers (deepstack).

    A video's frames are separated by time stamps; they still lie on one grid.
    """

    model_types = ("qwen3_vl",)
    adds_to_layers = True

    def _positions(self, grid: Grid) -> int:
        # Every frame of a video stands on its own, between time stamps.
        return grid.frames * max(grid.rows, grid.cols)
