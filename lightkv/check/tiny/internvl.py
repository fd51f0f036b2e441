"""Tiny InternVL: tiles of a fixed size next to each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel
from lightkv.check.tiny.parts import END, IMAGE, PATCH, START, TEXT, TILE, TOWER, make, pixels


def internvl() -> Any:
    """InternVL with a Qwen2 decoder and 4 x 4 tokens a tile."""
    return make(
        "InternVLConfig",
        vision_config=make(
            "InternVLVisionConfig",
            **TOWER,
            image_size=[TILE, TILE],
            patch_size=[PATCH // 2, PATCH // 2],
        ),
        text_config=make("Qwen2Config", **TEXT),
        image_token_id=IMAGE,
        image_seq_length=16,
        downsample_ratio=0.5,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """Three tiles for a wide picture, else one."""
    tiles = 3 if kind == "wide" else 1
    picture = torch.full((tiles * config.image_seq_length,), IMAGE)
    ids = torch.cat([torch.tensor([START]), picture, torch.tensor([END])])
    return ids, {"pixel_values": pixels(generator, tiles, 3, TILE, TILE)}


MODELS = (TinyModel("internvl", internvl, paint),)
