"""Tiny LLaVA-OneVision: tiles up to a limit, plain images in a series, pooled video."""

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
    VIDEO,
    make,
    pixels,
    siglip,
    tiles_of,
)
from lightkv.families.llava import tile_side
from lightkv.families.llava_onevision import tiled_to_limit

MAX_TILES: Final = 9
FRAMES: Final = 3


def llava_onevision() -> Any:
    """LLaVA-OneVision with a Qwen2 decoder."""
    return make(
        "LlavaOnevisionConfig",
        vision_config=siglip(),
        text_config=make("Qwen2Config", **TEXT),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio=f"anyres_max_{MAX_TILES}",
    )


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """A picture, tiled where it is the only one, or a video."""
    side = tile_side(config)
    if kind == "video":
        pooled = -(-side // 2)
        ids = torch.full((FRAMES * pooled**2 + 1,), VIDEO)
        return ids, {"pixel_values_videos": pixels(generator, 1, FRAMES, 3, TILE, TILE)}
    size = PICTURE_SIZES[kind]
    single = pictures == 1
    tokens = tiled_to_limit(config, size).tokens if single else side**2 + 1
    tiles = tiles_of(config, size) if single else 1
    return torch.full((tokens,), IMAGE), {
        "pixel_values": pixels(generator, 1, tiles, 3, TILE, TILE),
        "image_sizes": torch.tensor([size]),
    }


def finish(row: Row, pictures: int) -> None:
    """The number of pictures of the row."""
    if "pixel_values" in row:
        row["batch_num_images"] = torch.tensor([pictures])


MODELS = (
    TinyModel("llava_onevision", llava_onevision, paint, finish, (("video",), ("wide", "tall"))),
)
