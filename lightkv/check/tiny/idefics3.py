"""Tiny Idefics3 and SmolVLM: tiles after row and column markers, the whole image last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel, nest_pixels
from lightkv.check.tiny.parts import (
    BREAK,
    IMAGE,
    MARK,
    NAME,
    PATCH,
    TEXT,
    TILE,
    TOWER,
    make,
    pixels,
)


def _config(name: str) -> Any:
    return make(
        name,
        vision_config={**TOWER, "image_size": TILE, "patch_size": PATCH // 2},
        text_config=make("LlamaConfig", **TEXT).to_dict(),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )


def idefics3() -> Any:
    """Idefics3 with 4 x 4 tokens a tile."""
    return _config("Idefics3Config")


def smolvlm() -> Any:
    """SmolVLM with 4 x 4 tokens a tile."""
    return _config("SmolVLMConfig")


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """Tiles as the processor writes them: marker and name before each, a break after each row."""
    tile = torch.full((16,), IMAGE)
    mark, whole = torch.tensor([MARK]), torch.tensor([NAME])
    parts: list[Tensor] = []
    rows, cols = (1, 2) if kind == "wide" else (0, 0)
    for row in range(rows):
        for col in range(cols):
            parts += [mark, torch.tensor([NAME + 1 + row * cols + col]), tile]
        parts.append(torch.tensor([BREAK]))
    if rows:
        parts.append(torch.tensor([BREAK]))
    ids = torch.cat([*parts, mark, whole, tile, mark])
    return ids, {"pixel_values": pixels(generator, rows * cols + 1, 3, TILE, TILE)}


MODELS = (
    TinyModel("idefics3", idefics3, paint, nest_pixels),
    TinyModel("smolvlm", smolvlm, paint, nest_pixels),
)
