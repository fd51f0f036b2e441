"""Tiny Qwen2-VL, Qwen2.5-VL and Qwen3-VL: native resolution, three-axis rotary, videos."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from lightkv.check.tiny.model import Row, TinyModel
from lightkv.check.tiny.parts import END, IMAGE, NAME, PATCH, START, TEXT, VIDEO, make, pixels

_EXTENTS: Final = {"wide": (1, 4, 8), "tall": (1, 8, 6), "video": (3, 4, 4)}
_TOWER: Final[dict[str, Any]] = {
    "num_heads": 4,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_IDS: Final = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def _text(**extra: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, **extra}
    return {**TEXT, "rope_parameters": rope}


def qwen2_vl() -> Any:
    """Qwen2-VL."""
    tower = {**_TOWER, "depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return make("Qwen2VLConfig", vision_config=tower, text_config=_text(), **_IDS)


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL, with windows in its tower."""
    tower = {
        **_TOWER,
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    return make("Qwen2_5_VLConfig", vision_config=tower, text_config=_text(), **_IDS)


def qwen3_vl() -> Any:
    """Qwen3-VL; three of its four decoder layers take vision features."""
    tower = {
        **_TOWER,
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    text = {**_text(mrope_interleaved=True), "head_dim": 16}
    return make("Qwen3VLConfig", vision_config=tower, text_config=text, **_IDS)


def paint(config: Any, kind: str, pictures: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """A picture or a video between markers."""
    frames, rows, cols = _EXTENTS[kind]
    values = pixels(generator, frames * rows * cols, 3 * 2 * PATCH * PATCH)
    extent = torch.tensor([[frames, rows, cols]])
    tokens = rows * cols // 4
    start, end = torch.tensor([START]), torch.tensor([END])
    if kind != "video":
        ids = torch.cat([start, torch.full((frames * tokens,), IMAGE), end])
        return ids, {"pixel_values": values, "image_grid_thw": extent}
    if config.model_type == "qwen3_vl":
        # Time stamp and markers around every frame.
        frame = torch.cat([torch.tensor([NAME]), start, torch.full((tokens,), VIDEO), end])
        ids = frame.repeat(frames)
    else:
        ids = torch.cat([start, torch.full((frames * tokens,), VIDEO), end])
    return ids, {"pixel_values_videos": values, "video_grid_thw": extent}


def finish(row: Row, pictures: int) -> None:
    """What kind of token each is: 1 for an image, 2 for a video."""
    ids = row["input_ids"]
    row["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()


_SERIES: Final = (("wide", "video"),)
MODELS = (
    TinyModel("qwen2_vl", qwen2_vl, paint, finish, _SERIES),
    TinyModel("qwen2_5_vl", qwen2_5_vl, paint, finish, _SERIES),
    TinyModel("qwen3_vl", qwen3_vl, paint, finish, _SERIES),
)
