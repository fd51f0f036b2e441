"""Where token grids lie on pictures, against what the image processors do with coordinates.

A picture whose red says how far right a pixel lies, and whose green how far down, goes through the
family's own image processor. What a token's patch shows then tells where it was taken from.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightkv.contract.layout import Grid
from lightkv.errors import UnsupportedError
from lightkv.families import family_of
from lightkv.families.boxes import WHOLE, Box
from lightkv.families.llava_next import stitched

PLAIN = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
"""Pixels stay as they are, from 0 to 1."""


def coordinates(height: int, width: int) -> Image.Image:
    across = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    down = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))
    both = np.stack([across, down, np.ones_like(down)], -1)
    return Image.fromarray((both * 255).round().astype(np.uint8))


def processor(module: str, name: str, **settings: Any) -> Any:
    made = import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(made, name)(**PLAIN, **settings)


def shown(image: Tensor, cells: int) -> Tensor:
    """(cells, cells, 3): mean right, down and presence of each patch of an image (3, S, S)."""
    side = image.shape[-1] // cells
    # (3, S, S) -> (3, cells, side, cells, side) -> (cells, cells, 3)
    return image.view(3, cells, side, cells, side).mean((2, 4)).permute(1, 2, 0)


def expected(box: Box, grid: Grid) -> Tensor:
    """(rows, cols, 2): the middle of each cell, right and down."""
    left, top, right, bottom = box
    across = left + (torch.arange(grid.cols) + 0.5) / grid.cols * (right - left)
    down = top + (torch.arange(grid.rows) + 0.5) / grid.rows * (bottom - top)
    return torch.stack(torch.broadcast_tensors(across[None], down[:, None]), -1)


def assert_shows(patches: Tensor, box: Box, grid: Grid, off: float = 0.02) -> None:
    """Patches that lie wholly on the picture show what the box says."""
    middle = expected(box, grid)
    half = torch.tensor([(box[2] - box[0]) / grid.cols, (box[3] - box[1]) / grid.rows]) / 2
    inside = ((middle - half > -1e-6) & (middle + half < 1 + 1e-6)).all(-1)
    assert inside.any()
    assert (patches[..., :2] - middle)[inside].abs().max() < off


def pixel_values(image_processor: Any, picture: Image.Image, **settings: Any) -> Tensor:
    pixels: Tensor = image_processor(picture, return_tensors="pt", **settings)["pixel_values"]
    return pixels.float()


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (80, 80)])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
        {"size": {"shortest_edge": 84}, "crop_size": {"height": 56, "width": 56}},
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "do_pad": True},
        {"size": {"height": 56, "width": 56}, "do_center_crop": False},
    ],
    ids=["cut", "cut more", "padded", "squeezed"],
)
def test_llava(size: tuple[int, int], settings: dict[str, Any]) -> None:
    image_processor = processor("llava", "LlavaImageProcessorPil", **settings)
    grid = Grid(1, 8, 8)
    (box,) = family_of("llava").picture_boxes(image_processor, size, [grid])
    assert_shows(shown(pixel_values(image_processor, coordinates(*size))[0], 8), box, grid)


PINPOINTS = [[56, 112], [112, 56], [112, 112], [56, 168], [168, 56]]


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (80, 80), (40, 170), (30, 61)])
def test_llava_next(size: tuple[int, int]) -> None:
    image_processor = processor(
        "llava_next",
        "LlavaNextImageProcessorPil",
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=PINPOINTS,
    )
    tiles = pixel_values(image_processor, coordinates(*size))[0]
    rows, cols = stitched(size, PINPOINTS, 56, 8)
    grids = [Grid(1, 8, 8), Grid(1, rows, cols)]
    base, whole = family_of("llava_next").picture_boxes(image_processor, size, grids)
    assert_shows(shown(tiles[0], 8), base, grids[0])
    # Tiles side by side, then what is left of the padding is cut in the middle.
    canvas = next(p for p in PINPOINTS if p[0] * p[1] // 56**2 == len(tiles) - 1 and _fits(p, size))
    down, across = canvas[0] // 56, canvas[1] // 56
    patches = torch.stack([shown(tile, 8) for tile in tiles[1:]])
    # (tiles, 8, 8, 3) -> (down, across, 8, 8, 3) -> (down * 8, across * 8, 3)
    patches = patches.view(down, across, 8, 8, 3).transpose(1, 2).reshape(down * 8, across * 8, 3)
    top, left = (down * 8 - rows) // 2, (across * 8 - cols) // 2
    assert_shows(patches[top : top + rows, left : left + cols], whole, grids[1])


def _fits(canvas: list[int], size: tuple[int, int]) -> bool:
    """Whether a canvas lies as a picture does."""
    return (canvas[0] - canvas[1]) * (size[0] - size[1]) >= 0


@pytest.mark.parametrize("size", [(60, 100), (100, 60)])
def test_llava_onevision_pads_each_of_several_pictures(size: tuple[int, int]) -> None:
    image_processor = processor(
        "llava_onevision",
        "LlavaOnevisionImageProcessorPil",
        size={"height": 56, "width": 56},
        image_grid_pinpoints=PINPOINTS,
    )
    picture, grid = coordinates(*size), Grid(1, 8, 8)
    pixels = image_processor([[picture, picture]], return_tensors="pt")["pixel_values"].float()
    family = family_of("llava_onevision")
    (box,) = family.picture_boxes(image_processor, size, [grid])
    assert_shows(shown(pixels[0][0], 8), box, grid)
    assert len(family.picture_boxes(image_processor, size, [grid, Grid(1, 8, 16)])) == 2


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (80, 80), (40, 170)])
def test_internvl(size: tuple[int, int]) -> None:
    image_processor = processor(
        "got_ocr2",
        "GotOcr2ImageProcessorPil",
        size={"height": 56, "width": 56},
        crop_to_patches=True,
        min_patches=1,
        max_patches=6,
    )
    tiles = pixel_values(image_processor, coordinates(*size))
    grids = [Grid(1, 8, 8)] * len(tiles)
    boxes = family_of("internvl").picture_boxes(image_processor, size, grids)
    assert len(boxes) == len(tiles) > 0 and (len(tiles) == 1 or boxes[-1] == WHOLE)
    for tile, box, grid in zip(tiles, boxes, grids, strict=True):
        assert_shows(shown(tile, 8), box, grid)
    with pytest.raises(UnsupportedError, match="where they lie is not known"):
        family_of("internvl").picture_boxes(image_processor, size, [grids[0]] * 20)


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (80, 80), (40, 170)])
def test_idefics3(family: str, size: tuple[int, int]) -> None:
    name = {"idefics3": "Idefics3ImageProcessorPil", "smolvlm": "SmolVLMImageProcessorPil"}[family]
    image_processor = processor(
        family, name, size={"longest_edge": 168}, max_image_size={"longest_edge": 56}
    )
    tiles = pixel_values(image_processor, coordinates(*size))[0]
    grids = [Grid(1, 8, 8)] * len(tiles)
    boxes = family_of(family).picture_boxes(image_processor, size, grids)
    assert len(boxes) == len(tiles) > 2 and boxes[-1] == WHOLE
    for tile, box, grid in zip(tiles, boxes, grids, strict=True):
        assert_shows(shown(tile, 8), box, grid)
    assert family_of(family).picture_boxes(image_processor, size, grids[:1]) == [WHOLE]


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (45, 45)])
def test_fuyu(size: tuple[int, int]) -> None:
    image_processor = processor(
        "fuyu",
        "FuyuImageProcessorPil",
        size={"height": 80, "width": 80},
        patch_size={"height": 8, "width": 8},
        rescale_factor=1 / 255,
    )
    output = image_processor(coordinates(*size), return_tensors="pt")
    image = torch.as_tensor(np.asarray(output["images"][0][0])).float()
    height, width = (int(output[f"image_unpadded_{name}s"][0][0]) for name in ("height", "width"))
    grid = Grid(1, -(-height // 8), -(-width // 8))
    (box,) = family_of("fuyu").picture_boxes(image_processor, size, [grid])
    patches = image[:, : grid.rows * 8, : grid.cols * 8]
    # (3, rows * 8, cols * 8) -> (3, rows, 8, cols, 8) -> (rows, cols, 3)
    patches = patches.reshape(3, grid.rows, 8, grid.cols, 8).mean((2, 4)).permute(1, 2, 0)
    assert_shows(patches, box, grid)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "gemma3"])
def test_families_that_show_the_whole_picture(name: str) -> None:
    assert family_of(name).picture_boxes(None, (60, 100), [Grid(1, 2, 4)]) == [WHOLE]


def test_eve_does_not_know() -> None:
    with pytest.raises(UnsupportedError, match="EVE's own code"):
        family_of("eve").picture_boxes(None, (60, 100), [Grid(1, 2, 4)])
