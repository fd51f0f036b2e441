"""Grid formulas against the models' and processors' own counts, over hundreds of image sizes."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from lightkv.check.tiny import ZOO
from lightkv.check.tiny.parts import BREAK, IMAGE, VIDEO
from lightkv.families import family_of
from lightkv.families.llava_next import stitched, tiled
from lightkv.families.llava_onevision import tiled_to_limit

SIZES = [
    (int(h), int(w)) for h, w in np.random.default_rng(0).integers(20, 2000, (400, 2)).tolist()
]
NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION_PINPOINTS = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]


def config_of(tile: int, patch: int, pinpoints: list[list[int]], kind: str) -> Any:
    vision = SimpleNamespace(image_size=tile, patch_size=patch, model_type=kind)
    return SimpleNamespace(
        vision_config=vision,
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="default" if "clip" in kind else "full",
        vision_aspect_ratio="anyres_max_9",
    )


def coordinates(config: Any, size: tuple[int, int]) -> Tensor:
    """(tiles, s * s, 2) features that say where on the stitched canvas a patch lies."""
    from transformers.image_processing_utils import select_best_resolution

    tile = config.vision_config.image_size
    side = tile // config.vision_config.patch_size
    height, width = select_best_resolution(size, config.image_grid_pinpoints)
    cells = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1)
    tiles = [cells]
    for row in range(height // tile):
        for col in range(width // tile):
            tiles.append(cells + torch.tensor([row * side, col * side]))
    return torch.stack(tiles).flatten(1, 2).float()


def check_against_model(model: Any, config: Any, size: tuple[int, int], picture: Any) -> None:
    newline = torch.full((2,), -1.0)
    extra = ("default",) if model is LlavaNextModel else ()
    packed, _ = model.pack_image_features(
        SimpleNamespace(config=config),
        [coordinates(config, size)],
        torch.tensor([size]),
        *extra,
        image_newline=newline,
    )
    base, tiles = picture.segments
    assert len(packed[0]) == picture.tokens
    cells = tiles.cells()[:, 1:]
    features = packed[0][base.tokens :]
    breaks = cells[:, 1] == tiles.grid.cols
    assert torch.equal((features == -1).all(1), breaks)
    if tiles.grid == canvas_grid(config, size):
        # Not scaled down: up to the padding that was cut, features are the cells themselves.
        offset = features[0]
        assert torch.equal(features[~breaks] - offset, cells[~breaks].float())


def canvas_grid(config: Any, size: tuple[int, int]) -> Any:
    from lightkv.contract.layout import Grid

    tile = config.vision_config.image_size
    side = tile // config.vision_config.patch_size
    return Grid(1, *stitched(size, config.image_grid_pinpoints, tile, side))


def test_llava_next_against_model_and_processor() -> None:
    config = config_of(336, 14, NEXT_PINPOINTS, "clip_vision_model")
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=NEXT_PINPOINTS),
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )
    processor._get_unpadded_features = lambda *a: LlavaNextProcessor._get_unpadded_features(
        processor, *a
    )
    for number, size in enumerate(SIZES):
        picture = tiled(config, size)
        count = LlavaNextProcessor._get_number_of_features(processor, *size, 336, 336)
        # The processor takes the class token off afterwards.
        assert picture.tokens == count - 1
        if number % 4 == 0:
            check_against_model(LlavaNextModel, config, size, picture)


def test_llava_onevision_against_model_and_processor() -> None:
    config = config_of(384, 14, ONEVISION_PINPOINTS, "siglip_vision_model")
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=ONEVISION_PINPOINTS),
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    processor._get_unpadded_features = lambda *a: LlavaOnevisionProcessor._get_unpadded_features(
        processor, *a
    )
    scaled = 0
    for number, size in enumerate(SIZES):
        picture = tiled_to_limit(config, size)
        count = LlavaOnevisionProcessor._get_number_of_features(processor, *size, 384, 384)
        assert picture.tokens == count
        scaled += picture.segments[1].grid != canvas_grid(config, size)
        if number % 8 == 0:
            check_against_model(LlavaOnevisionModel, config, size, picture)
    assert scaled > 50


@pytest.mark.parametrize(
    ("name", "model"),
    [("qwen2_vl", Qwen2VLModel), ("qwen2_5_vl", Qwen2_5_VLModel), ("qwen3_vl", Qwen3VLModel)],
)
def test_qwen_cells_are_the_models_own_positions(name: str, model: Any) -> None:
    """Rows and columns of the layout are the height and width axes of the rotary positions."""
    config = ZOO[name].config()
    stub = SimpleNamespace(config=config)
    stub.get_vision_position_ids = lambda *a, **k: model.get_vision_position_ids(stub, *a, **k)
    for number, (height, width) in enumerate(SIZES[:100]):
        high, wide = smart_resize(height, width, 28, 4 * 28 * 28, 60 * 28 * 28)
        rows, cols = high // 14, wide // 14
        frames = 1 + number % 3 if number % 2 else 1
        token, key = (VIDEO, "video_grid_thw") if number % 2 else (IMAGE, "image_grid_thw")
        picture = torch.full((rows * cols // 4,), token)
        if name == "qwen3_vl":
            picture = torch.cat([picture, torch.tensor([7])])
            ids = torch.cat([torch.tensor([5, 6]), picture.repeat(frames)])[None]
        else:
            picture = picture.repeat(frames)
            ids = torch.cat([torch.tensor([5, 6]), picture, torch.tensor([7])])[None]
        extent = torch.tensor([[frames, rows, cols]])
        kinds = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": kinds,
            key: extent,
        }
        layout = family_of(name).layout(config, inputs)
        positions, _ = model.get_rope_index(stub, ids, kinds, **{key: extent.clone()})
        seen = layout.vision[0]
        for frame in range(frames):
            mine = seen & (layout.frame[0] == frame)
            height_axis, width_axis = positions[1, 0, mine], positions[2, 0, mine]
            assert torch.equal(height_axis - height_axis.min(), layout.row[0, mine])
            assert torch.equal(width_axis - width_axis.min(), layout.col[0, mine])


def test_idefics_tiles_as_the_processor_writes_them() -> None:
    config = ZOO["idefics3"].config()
    ids_of = {"<fake>": 148, "<image>": IMAGE, "<global>": 140, "\n": BREAK}
    random = np.random.default_rng(1)
    for _ in range(200):
        text, tiles = "", []
        for _ in range(int(random.integers(1, 4))):
            rows, cols = (int(n) for n in random.integers(0, 4, 2))
            rows, cols = (rows, cols) if rows and cols else (0, 0)
            text += "ab"[: int(random.integers(0, 3))]
            text += get_image_prompt_string(rows, cols, 16, "<fake>", "<image>", "<global>")
            tiles.append(rows * cols + 1)
        pieces = re.findall(r"<[^>]+>|\n\n|.|\n", text + "end")
        ids = torch.tensor([[ids_of.get(piece, 100 + len(piece)) for piece in pieces]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        layout = family_of("idefics3").layout(config, inputs)
        tokens_of = [int((layout.image == image).sum()) // 16 for image in range(len(tiles))]
        assert tokens_of == tiles
        assert int(layout.image.max()) + 1 == len(tiles)


def test_fuyu_rows_and_internvl_tiles() -> None:
    random = np.random.default_rng(2)
    fuyu, internvl = ZOO["fuyu"].config(), ZOO["internvl"].config()
    for _ in range(200):
        rows, cols = (int(n) for n in random.integers(1, 13, 2))
        lines = ([IMAGE] * cols + [BREAK]) * rows
        ids = torch.tensor([[*lines, 1, 5, 6]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        layout = family_of("fuyu").layout(fuyu, inputs)
        assert [(g.rows, g.cols) for g in layout.grids[0]] == [(rows, cols)]
        tokens = [[152, *[IMAGE] * (16 * n), 153] for n in (rows, cols)]
        ids = torch.tensor([[3, *tokens[0], *tokens[1], 5]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        layout = family_of("internvl").layout(internvl, inputs)
        counts = [int((layout.image == image).sum()) for image in (0, 1)]
        assert counts == [16 * rows, 16 * cols]
