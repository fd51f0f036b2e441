"""Schedules for models of other depths."""

from __future__ import annotations

import pytest

from lightkv.cost.presets import MergeSchedule
from lightkv.errors import InvalidValueError
from lightkv.merging.schedule import PAPER, PAPER_DEPTH, scaled, schedule_for


def test_the_papers_own_depth_is_unchanged() -> None:
    assert scaled(PAPER_DEPTH).layers == PAPER.layers == (15, 23, 31)


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(8, (2, 4, 5)), (32, (12, 18, 25)), (28, (10, 16, 21)), (4, (0, 1, 2)), (5, (1, 2, 3))],
)
def test_stages_keep_their_share_of_the_layers(depth: int, layers: tuple[int, ...]) -> None:
    schedule = scaled(depth)
    assert schedule.layers == layers
    assert (schedule.windows, schedule.ratios) == (PAPER.windows, PAPER.ratios)


def test_stages_stay_apart_and_before_the_last_layer() -> None:
    late = MergeSchedule((36, 37, 38), (4, 2, 1), (0.5, 0.5, 0.5))
    assert scaled(6, schedule=late, of=40).layers == (2, 3, 4)
    early = MergeSchedule((0, 1, 2), (4, 2, 1), (0.5, 0.5, 0.5))
    assert scaled(6, schedule=early, of=40).layers == (0, 1, 2)


def test_too_shallow_a_model_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least 4"):
        scaled(3)


def test_models_without_a_published_schedule_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="published schedule"):
        schedule_for("llava-onevision-qwen2-0.5b")
