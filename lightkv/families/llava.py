"""LLaVA-1.5 and models of the same class: one square grid per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import QuestionWords, VisionFeatures
from lightkv.errors import InputError
from lightkv.families.base import Family, Supply
from lightkv.families.clip_tower import clip_features, has_class_token
from lightkv.families.slots import Picture, Segment


class Llava(Family):
    """LLaVA-1.5: s x s patches per image, in raster order."""

    model_types = ("llava",)

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        side = tile_side(config)
        return squares(side, side)

    def vision_features(
        self,
        model: Any,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
        names: frozenset[str],
        words: QuestionWords | None = None,
    ) -> VisionFeatures:
        if not has_class_token(model.config):
            return VisionFeatures()
        return clip_features(model, inputs["pixel_values"], layout, names, words=words)


def tile_side(config: Any) -> int:
    """Patches along a side of a tile of the vision tower.

    Raises:
        InputError: If the class token is kept, which has no place on the grid.
    """
    vision = config.vision_config
    has_class_token = "clip" in vision.model_type
    if config.vision_feature_select_strategy == "full" and has_class_token:
        raise InputError(
            "vision_feature_select_strategy='full' keeps the CLS token, which has no grid cell; "
            "load the model with 'default'"
        )
    return int(vision.image_size // vision.patch_size)


def squares(rows: int, cols: int) -> Supply:
    """One grid of a fixed size per picture."""
    picture = Picture((Segment(Grid(1, rows, cols)),))

    def supply(_: int, __: Tensor, slots: Tensor) -> list[Picture]:
        if len(slots) % picture.tokens:
            raise InputError(
                f"{len(slots)} vision tokens are no multiple of the {rows} x {cols} tokens of an "
                "image; build the prompt with the model's own processor"
            )
        return [picture] * (len(slots) // picture.tokens)

    return supply
