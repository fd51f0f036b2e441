"""Schedules for models of other depths."""

from __future__ import annotations

import dataclasses

import pytest

from lightkv.cost.presets import MergeSchedule
from lightkv.cost.token_counts import token_layer_fraction
from lightkv.errors import InvalidValueError
from lightkv.merging.schedule import PAPER, PAPER_DEPTH, at_share, scaled, schedule_for


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


def processed(depth: int, schedule: MergeSchedule) -> float:
    run = tuple(layer + 1 for layer in schedule.layers)
    return token_layer_fraction(depth, dataclasses.replace(schedule, layers=run))


@pytest.mark.parametrize(("depth", "share"), [(28, 0.4), (28, 0.2), (32, 0.6), (8, 0.4)])
def test_stages_lie_where_the_share_is_processed(depth: int, share: float) -> None:
    schedule = at_share(depth, share)
    assert processed(depth, schedule) == pytest.approx(share, abs=0.02)
    assert (schedule.windows, schedule.ratios) == (PAPER.windows, PAPER.ratios)
    assert max(schedule.layers) < depth - 1


def test_of_equally_near_schedules_the_most_even_one_is_taken() -> None:
    # Stages after layers 0, 4 and 5 process 43.75 % of 8 layers as well.
    assert at_share(8, 0.4375).layers == (1, 2, 5)
    # After layers 0, 1 and 6 as well: a stage earlier, but far from even.
    assert at_share(8, 0.359375).layers == (0, 2, 4)


def test_a_share_may_be_missed_by_five_points_above_but_not_more() -> None:
    least = processed(8, at_share(8, 0.3))
    assert at_share(8, least - 0.049).layers == (0, 1, 2)
    with pytest.raises(InvalidValueError, match="share"):
        at_share(8, least - 0.051)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.01])
def test_a_share_is_of_the_token_layers(bad: float) -> None:
    with pytest.raises(InvalidValueError, match="share"):
        at_share(8, bad)


def test_a_share_needs_a_layer_after_the_last_stage() -> None:
    with pytest.raises(InvalidValueError, match="at least 4 for 3 stages"):
        at_share(3, 0.5)
    assert at_share(4, 1.0).layers == (0, 1, 2)
