"""What configs and prompts of several tiny models share: token ids, sizes, vision towers."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

VOCABULARY: Final = 160
NAME, MARK, BREAK, IMAGE, VIDEO, START, END = 140, 148, 149, 150, 151, 152, 153
TILE, PATCH = 32, 8
PINPOINTS: Final = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
PICTURE_SIZES: Final = {"wide": (40, 52), "tall": (90, 30)}
"""Height and width in pixels of a picture of that kind."""

HEADS: Final[dict[str, Any]] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXT: Final[dict[str, Any]] = {**HEADS, "num_key_value_heads": 2}
TOWER: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def make(name: str, **fields: Any) -> Any:
    """A config of transformers by its class name."""
    import transformers

    return getattr(transformers, name)(**fields)


def clip() -> Any:
    """Config of a CLIP vision tower, 4 x 4 patches."""
    return make("CLIPVisionConfig", **TOWER, image_size=TILE, patch_size=PATCH)


def siglip() -> Any:
    """Config of a SigLIP vision tower, 4 x 4 patches."""
    return make(
        "SiglipVisionConfig", **TOWER, image_size=TILE, patch_size=PATCH, vision_use_head=False
    )


def pixels(generator: torch.Generator, *shape: int) -> Tensor:
    """Random pixels of that shape."""
    return torch.randn(*shape, generator=generator)


def tiles_of(config: Any, size: tuple[int, int]) -> int:
    """Tiles of a picture of ``size`` (height, width), the whole picture included."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size, config.image_grid_pinpoints)
    return 1 + int(height // TILE) * int(width // TILE)
