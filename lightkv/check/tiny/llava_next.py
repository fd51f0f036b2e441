"""Tiny LLaVA-NeXT: tiles, stitched to one grid with line breaks."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel
from lightkv.check.tiny.parts import (
    IMAGE,
    PICTURE_SIZES,
    PINPOINTS,
    TEXT,
    TILE,
    clip,
    make,
    pixels,
    tiles_of,
)
from lightkv.families.llava_next import tiled

WINDOW: Final = 24
"""Tokens that a query of the Mistral decoder looks back on."""


def _config(text: Any) -> Any:
    return make(
        "LlavaNextConfig",
        vision_config=clip(),
        text_config=text,
        image_token_id=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
    )


def llava_next() -> Any:
    """LLaVA-NeXT with a Llama decoder."""
    return _config(make("LlamaConfig", **TEXT))


def llava_next_mistral() -> Any:
    """LLaVA-NeXT with a Mistral decoder whose layers all have a sliding window."""
    return _config(make("MistralConfig", **TEXT, sliding_window=WINDOW))


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """A tiled picture."""
    size = PICTURE_SIZES[kind]
    ids = torch.full((tiled(config, size).tokens,), IMAGE)
    values = pixels(generator, 1, tiles_of(config, size), 3, TILE, TILE)
    return ids, {"pixel_values": values, "image_sizes": torch.tensor([size])}


MODELS = (
    TinyModel("llava_next", llava_next, paint),
    TinyModel("llava_next_mistral", llava_next_mistral, paint),
)
