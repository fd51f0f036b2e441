"""Layouts say where every vision token lies: grids, breaks, separators, pictures in order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import Row, stack
from lightkv.contract.layout import Grid, TokenKind, TokenLayout
from lightkv.errors import InputError
from lightkv.families import FAMILIES, family_of


def layout_of(name: str, row: int | None = None) -> TokenLayout:
    config = ZOO[name].config()
    rows = ZOO[name].rows(config)
    inputs = stack(rows) if row is None else rows[row]
    return family_of(config.model_type).layout(config, inputs)


def where(layout: TokenLayout, kind: TokenKind) -> list[int]:
    return (layout.kind[0] == kind).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "row", "grids"),
    [
        ("llava", 2, [Grid(1, 4, 4)] * 2),
        ("llava_next", 0, [Grid(1, 4, 4), Grid(1, 6, 8)]),
        ("llava_next", 1, [Grid(1, 4, 4), Grid(1, 12, 4)]),
        ("llava_onevision", 2, [Grid(3, 2, 2)]),
        ("llava_onevision", 3, [Grid(1, 4, 4)] * 2),
        ("qwen2_vl", 0, [Grid(1, 2, 4)]),
        ("qwen2_5_vl", 2, [Grid(1, 2, 4), Grid(3, 2, 2)]),
        ("qwen3_vl", 2, [Grid(1, 2, 4), Grid(3, 2, 2)]),
        ("internvl", 2, [Grid(1, 4, 4)] * 4),
        ("gemma3", 2, [Grid(1, 4, 4)] * 2),
        ("idefics3", 2, [Grid(1, 4, 4)] * 4),
        ("fuyu", 2, [Grid(1, 3, 5), Grid(1, 4, 3)]),
    ],
)
def test_grids(name: str, row: int, grids: list[Grid]) -> None:
    assert list(layout_of(name, row).grids[0]) == grids


@pytest.mark.parametrize("name", ZOO)
def test_cells_are_covered_once_and_batches_are_rows_together(name: str) -> None:
    batch = layout_of(name)
    for number in range(batch.batch_size):
        one = layout_of(name, number)
        assert batch.grids[number] == one.grids[0]
        columns = ("kind", "image", "segment", "frame", "row", "col", "position")
        for column in columns:
            ours: Tensor = getattr(batch, column)[number, -one.length :]
            assert torch.equal(ours, getattr(one, column)[0])
        for segment, grid in enumerate(one.grids[0]):
            mine = (one.segment[0] == segment) & (one.col[0] < grid.cols)
            assert int(mine.sum()) == grid.cells


def test_a_line_break_ends_every_row() -> None:
    layout = layout_of("llava_next", 0)
    breaks = (layout.segment[0] == 1) & (layout.col[0] == 8)
    assert layout.row[0][breaks].tolist() == list(range(6))
    assert bool(layout.vision[0][breaks].all())


def test_a_video_and_a_series_end_with_one_break() -> None:
    video, series = layout_of("llava_onevision", 2), layout_of("llava_onevision", 3)
    last = video.vision[0].nonzero()[-1, 0]
    assert (int(video.frame[0, last]), int(video.col[0, last])) == (2, 2)
    assert int((series.col[0] == 4).sum()) == 2
    assert series.image[0][series.vision[0]].unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "row", "images", "separators"),
    [
        ("idefics3", 2, 2, 2 + 4),
        ("fuyu", 0, 1, 3),
        ("qwen3_vl", 2, 2, 2 * 3),
        ("internvl", 2, 2, 0),
        ("gemma3", 2, 2, 0),
    ],
)
def test_separators_are_structure_inside_a_picture(
    name: str, row: int, images: int, separators: int
) -> None:
    layout = layout_of(name, row)
    assert int(layout.image.max()) + 1 == images
    assert len(where(layout, TokenKind.SEPARATOR)) == separators
    assert where(layout, TokenKind.SYSTEM)[0] == 0
    assert where(layout, TokenKind.TEXT)[-1] == layout.length - 1


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("qwen2_5_vl", "mm_token_type_ids"),
        ("qwen3_vl", "image_grid_thw"),
        ("gemma3", "token_type_ids"),
        ("llava_next", "image_sizes"),
    ],
)
def test_lost_inputs_are_named(name: str, lost: str) -> None:
    config = ZOO[name].config()
    row = {k: v for k, v in ZOO[name].rows(config)[0].items() if k != lost}
    with pytest.raises(InputError, match=lost):
        family_of(config.model_type).layout(config, row)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "fuyu"])
def test_a_cut_picture_is_an_error(name: str) -> None:
    config = ZOO[name].config()
    row = ZOO[name].rows(config)[0]
    family = family_of(config.model_type)
    slot = family.layout(config, row).vision[0].nonzero()[1, 0]
    cut: Row = {**row, "input_ids": row["input_ids"].clone()}
    cut["input_ids"][0, slot] = 5
    with pytest.raises(InputError, match="processor"):
        family.layout(config, cut)


def test_a_prompt_without_pictures_needs_no_grids() -> None:
    ids = torch.arange(3, 9)[None]
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in ZOO:
        config = ZOO[name].config()
        layout = family_of(config.model_type).layout(config, text)
        assert bool(layout.question.all())
        assert layout.grids == ((),)


def test_every_stock_family_is_in_the_zoo() -> None:
    known = {kind for f in FAMILIES for kind in f.model_types if not f.remote_code}
    assert known == {ZOO[name].config().model_type for name in ZOO}
