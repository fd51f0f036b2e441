"""Tiny Gemma 3: pooled tokens that see each other in both directions, windowed layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel
from lightkv.check.tiny.parts import END, IMAGE, START, TEXT, TILE, make, pixels, siglip


def gemma3() -> Any:
    """Gemma 3 with every second layer windowed and 4 x 4 tokens an image."""
    text = make(
        "Gemma3TextConfig",
        **TEXT,
        head_dim=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=16,
    )
    return make(
        "Gemma3Config",
        text_config=text,
        vision_config=siglip(),
        mm_tokens_per_image=16,
        image_token_id=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """A square picture between markers, whatever its kind."""
    picture = torch.full((config.mm_tokens_per_image,), IMAGE)
    ids = torch.cat([torch.tensor([START]), picture, torch.tensor([END])])
    return ids, {"pixel_values": pixels(generator, 1, 3, TILE, TILE)}


def finish(row: Row, pictures: int) -> None:
    """Which tokens are of an image."""
    row["token_type_ids"] = (row["input_ids"] == IMAGE).long()


MODELS = (TinyModel("gemma3", gemma3, paint, finish),)
