"""The presets hold together: dimensions, published parameter counts, schedules."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from lightkv.cost.presets import MergeSchedule, preset, presets
from lightkv.cost.presets.shape import ModelShape, ProjectorShape, TextShape, VisionShape
from lightkv.errors import InvalidValueError, UnknownNameError

# Published sizes; for models whose vision side is not modelled, the decoder's.
BILLIONS = {
    "eve-7b-v1": 6.74,
    "eve-7b-v1-hd": 6.74,
    "internvl2-8b": 8.08,
    "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35,
    "llava-next-7b": 7.06,
    "llava-next-13b": 13.35,
    "llava-next-mistral-7b": 7.57,
    "llava-onevision-qwen2-0.5b": 0.894,
    "qwen2.5-vl-7b": 7.62,
    "qwen3-vl-4b": 4.02,
    "qwen3-vl-8b": 8.19,
}


def test_every_preset_has_its_published_size() -> None:
    assert set(presets()) == set(BILLIONS)
    for name, billions in BILLIONS.items():
        assert preset(name).shape.parameters / 1e9 == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize("name", presets())
def test_dimensions_agree_with_each_other(name: str) -> None:
    entry = preset(name)
    text, vision, projector = entry.shape.text, entry.shape.vision, entry.shape.projector
    assert entry.name == name
    assert bool(entry.unmodelled) == (vision is None)
    if vision is not None and projector is not None:
        assert text.heads * text.head_dim == text.hidden
        assert vision.tokens - vision.patches in (0, 1)
        assert vision.hidden % vision.heads == 0
        assert projector.outputs == text.hidden
        assert entry.vision_tokens <= entry.tiles * (projector.rows + 27)
    assert "{question}" in entry.prompt
    assert "<image>" in entry.prompt
    for schedule in entry.schedules:
        assert schedule.layers[-1] < text.layers
        assert schedule.source
        assert entry.schedule(schedule.name) is schedule


def test_llava_next_counts_a_base_tile_and_rows_with_line_breaks() -> None:
    assert preset("llava-next-13b").vision_tokens == 24 * 24 + 32 * (48 + 1)


def test_presets_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        preset("llava-1.5-7b").tiles = 2  # type: ignore[misc]


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean llava-1\.5-7b"):
        preset("llava-1.5-7")
    with pytest.raises(UnknownNameError, match="released"):
        preset("llava-1.5-7b").schedule("paper")
    assert ModelShape.from_preset("llava-1.5-7b") == preset("llava-1.5-7b").shape
    assert ModelShape.from_preset(preset("llava-1.5-7b")) == preset("llava-1.5-7b").shape


@pytest.mark.parametrize(
    ("layers", "windows", "ratios", "named"),
    [
        ((3, 5), (2,), (0.5, 0.5), "lengths"),
        ((5, 3), (2, 1), (0.5, 0.5), "layers"),
        ((-1,), (2,), (0.5,), "layers"),
        ((3,), (0,), (0.5,), "windows"),
        ((3,), (1,), (1.5,), "ratios"),
        ((3,), (1,), (float("nan"),), "ratios"),
    ],
)
def test_impossible_schedules_are_refused(
    layers: tuple[int, ...], windows: tuple[int, ...], ratios: tuple[float, ...], named: str
) -> None:
    with pytest.raises(InvalidValueError, match=named):
        MergeSchedule(layers, windows, ratios)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="layers"):
        TextShape(0, 8, 8, 2, 2, 4, 10)
    with pytest.raises(InvalidValueError, match="kv_heads"):
        TextShape(1, 8, 8, 3, 2, 4, 10)
    with pytest.raises(InvalidValueError, match="used_layers"):
        VisionShape(2, 8, 8, 2, 28, 14, 5, used_layers=3)
    with pytest.raises(InvalidValueError, match="projector"):
        ModelShape(TextShape(1, 8, 8, 2, 2, 4, 10), projector=ProjectorShape(8, 8, 8, 4))
