"""Pictures: the data say what is drawn, and where."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lightkv.embedded import scenes
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.scenes import EMPTY, NUMBER


def test_every_patch_belongs_to_one_cell() -> None:
    cells = SQUARE.cell_of_patch
    assert cells.shape == (SQUARE.rows, SQUARE.rows)
    counts = np.bincount(cells.ravel(), minlength=9)
    assert counts.tolist() == [25, 30, 25, 30, 36, 30, 25, 30, 25]


@pytest.mark.parametrize(
    ("shapes", "numbers"), [((3, 6), (1, 2)), ((1, 3), (0, 3)), ((6, 6), (3, 3))]
)
def test_sample_respects_ranges(shapes: tuple[int, int], numbers: tuple[int, int]) -> None:
    drawn = scenes.sample(np.random.default_rng(0), 50, shapes=shapes, numbers=numbers)
    n_numbers = (drawn.kind == NUMBER).sum(1)
    n_shapes = ((drawn.kind != EMPTY) & (drawn.kind != NUMBER)).sum(1)
    assert n_numbers.min() >= numbers[0] and n_numbers.max() <= numbers[1]
    assert n_shapes.min() >= shapes[0] and n_shapes.max() <= shapes[1]


def test_numbers_of_a_picture_differ_in_color() -> None:
    drawn = scenes.sample(np.random.default_rng(1), 100, numbers=(3, 3))
    for kind, color in zip(drawn.kind, drawn.color, strict=True):
        number_colors = color[kind == NUMBER]
        assert len(set(number_colors.tolist())) == len(number_colors)


def test_coverage_matches_pixels() -> None:
    """Removing one object changes exactly the patches that the labels call covered."""
    drawn = scenes.sample(np.random.default_rng(2), 30)
    full = scenes.render(np.random.default_rng(5), drawn).astype(int)
    owner, _ = scenes.coverage(drawn)
    for b in range(len(drawn)):
        cell = int(np.flatnonzero(drawn.kind[b] != EMPTY)[0])
        kind = drawn.kind.copy()
        kind[b, cell] = EMPTY
        without = dataclasses.replace(drawn, kind=kind)
        # The digits' jitter depends on how many numbers are drawn before, so compare a shape.
        if drawn.kind[b, cell] == NUMBER:
            continue
        changed = np.abs(full[b] - scenes.render(np.random.default_rng(5), without)[b]).max(-1) > 12
        share = changed.reshape(SQUARE.rows, PATCH, SQUARE.rows, PATCH).mean((1, 3))
        covered = owner[b] == cell
        assert covered.any()
        assert share[covered].min() > 0.05
        assert share[~covered].max() < 0.2


def test_objects_stay_inside_their_cell() -> None:
    drawn = scenes.sample(np.random.default_rng(3), 200)
    owner, place = scenes.coverage(drawn)
    cells = SQUARE.cell_of_patch
    shown = owner >= 0
    assert (owner[shown] == np.broadcast_to(cells, owner.shape)[shown]).all()
    assert ((place > 0).sum((1, 2)) == 4 * (drawn.kind == NUMBER).sum(1)).all()


def test_labels_agree_with_the_scene() -> None:
    drawn = scenes.sample(np.random.default_rng(4), 40)
    labels = scenes.patch_labels(drawn)
    assert all(field.shape == (40, 256) for field in vars(labels).values())
    objects = (drawn.kind != EMPTY).sum(1)
    assert ((labels.center > 0).sum(1) == objects).all()
    assert ((labels.digit > 0) == (labels.place > 0)).all()
    assert ((labels.color > 0) == (labels.kind > 0)).all()


def test_rendering_is_deterministic_and_uses_the_whole_range() -> None:
    drawn = scenes.sample(np.random.default_rng(6), 4)
    one = scenes.render(np.random.default_rng(7), drawn)
    two = scenes.render(np.random.default_rng(7), drawn)
    assert one.shape == (4, 128, 128, 3) and one.dtype == np.uint8
    assert (one == two).all()
    assert one.max() > 200 and one.min() < 60
