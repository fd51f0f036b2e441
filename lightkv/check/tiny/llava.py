"""Tiny LLaVA: one square grid per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel
from lightkv.check.tiny.parts import IMAGE, TEXT, TILE, clip, make, pixels
from lightkv.families.llava import tile_side


def llava() -> Any:
    """LLaVA with a Llama decoder."""
    return make(
        "LlavaConfig",
        vision_config=clip(),
        text_config=make("LlamaConfig", **TEXT),
        image_token_id=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """A square picture, whatever its kind."""
    ids = torch.full((tile_side(config) ** 2,), IMAGE)
    return ids, {"pixel_values": pixels(generator, 1, 3, TILE, TILE)}


MODELS = (TinyModel("llava", llava, paint),)
