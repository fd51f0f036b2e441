"""LLaVA-1.5 and models of the same class: one square grid per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightkv.errors import InputError
from lightkv.families.base import Family
from lightkv.layout import Grid, TokenKind, TokenLayout, single_layout


class Llava(Family):
    """``LlavaForConditionalGeneration``: s x s patches per image, in raster order."""

    model_types = ("llava",)

    def layout(self, config: Any, inputs: Mapping[str, Tensor]) -> TokenLayout:
        """Layout of a batch; each image covers ``(image_size / patch_size)^2`` tokens.

        Raises:
            InputError: If the vision tokens of a row are no whole number of images.
        """
        side = config.vision_config.image_size // config.vision_config.patch_size
        per_image = side * side
        if config.vision_feature_select_strategy == "full":
            raise InputError(
                "vision_feature_select_strategy='full' keeps the CLS token, which has no grid "
                "cell; load the model with 'default'"
            )
        rows = []
        for ids, real in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
            vision = (ids == config.image_token_id) & real
            count = int(vision.sum())
            if count % per_image:
                raise InputError(
                    f"{count} vision tokens are no multiple of the {side} x {side} tokens of an "
                    "image; build the prompt with the model's own processor"
                )
            grids = [Grid(1, side, side)] * (count // per_image)
            rows.append(single_layout(text_kinds(vision, real), grids))
        return TokenLayout.stack(rows).to(inputs["input_ids"].device)


def text_kinds(vision: Tensor, real: Tensor) -> Tensor:
    """Kinds (N,) of a row: text before the first vision token is SYSTEM, after it TEXT.

    Args:
        vision: (N,) bool. A row without vision tokens is TEXT throughout.
        real: (N,) bool, False for padding.
    """
    seen = vision.cumsum(0) > 0 if bool(vision.any()) else torch.ones_like(vision)
    kind = torch.where(seen, int(TokenKind.TEXT), int(TokenKind.SYSTEM))
    kind = torch.where(vision, int(TokenKind.VISION), kind)
    return torch.where(real, kind, int(TokenKind.PADDING)).cpu()
