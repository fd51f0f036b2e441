"""LLaVA-1.5 and models of the same class: one square grid per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import QuestionWords, VisionFeatures
from lightkv.errors import InputError
from lightkv.families.base import Family
from lightkv.families.boxes import WHOLE, Box, centred, pixels, within
from lightkv.families.clip_tower import clip_features, has_class_token
from lightkv.families.slots import Picture, Segment
from lightkv.families.supply import Supply


class Llava(Family):
    """LLaVA-1.5: s x s patches per image, in raster order."""

    model_types = ("llava",)

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        side = tile_side(config)
        return squares(side, side)

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        return [seen_by_tower(image_processor, size)] * len(grids)

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


def seen_by_tower(image_processor: Any, size: tuple[int, int]) -> Box:
    """What a tower of fixed resolution sees: padded to a square, resized and cut, as settings say.

    Args:
        image_processor: Of the model.
        size: (height, width) of the picture in pixels.
    """
    canvas, canvas_box = size, WHOLE
    if getattr(image_processor, "do_pad", False):
        canvas = (max(size), max(size))
        canvas_box = centred(size, canvas)
    if not getattr(image_processor, "do_center_crop", False):
        return canvas_box
    shortest = pixels(image_processor.size, "shortest_edge")
    if shortest is not None:
        canvas = (shortest * canvas[0] // min(canvas), shortest * canvas[1] // min(canvas))
    else:
        height, width = (pixels(image_processor.size, name) for name in ("height", "width"))
        canvas = (height or canvas[0], width or canvas[1])
    crop = image_processor.crop_size
    window = (pixels(crop, "height") or canvas[0], pixels(crop, "width") or canvas[1])
    return within(centred(canvas, window), canvas_box)


def squares(rows: int, cols: int) -> Supply:
    """One grid of a fixed size per picture; what is returned raises :class:`InputError`.

    It does so where vision tokens are not a whole number of pictures.
    """
    picture = Picture((Segment(Grid(1, rows, cols)),))

    def supply(_: int, __: Tensor, slots: Tensor) -> list[Picture]:
        if len(slots) % picture.tokens:
            raise InputError(
                f"{len(slots)} vision tokens are not a multiple of the {rows} x {cols} tokens of "
                "an image; build the prompt with the model's own processor"
            )
        return [picture] * (len(slots) // picture.tokens)

    return supply
