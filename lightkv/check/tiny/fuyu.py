"""Tiny Fuyu: no vision encoder; rows of patches, each closed by a line-break token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel, nest_pixels
from lightkv.check.tiny.parts import BREAK, HEADS, IMAGE, PATCH, TILE, make, pixels


def fuyu() -> Any:
    """Fuyu: a Persimmon decoder, one linear map in place of a vision encoder."""
    text = {**HEADS, "model_type": "persimmon", "partial_rotary_factor": 0.5}
    return make(
        "FuyuConfig",
        text_config=text,
        **HEADS,
        patch_size=PATCH,
        num_channels=3,
        image_size=TILE,
        image_token_id=IMAGE,
    )


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """Lines of patches and a closing mark."""
    rows, cols = (3, 5) if kind == "wide" else (4, 3)
    line = torch.cat([torch.full((cols,), IMAGE), torch.tensor([BREAK])])
    ids = torch.cat([line.repeat(rows), torch.tensor([config.bos_token_id])])
    return ids, {"pixel_values": pixels(generator, rows * cols, 3 * PATCH * PATCH)}


MODELS = (TinyModel("fuyu", fuyu, paint, nest_pixels),)
