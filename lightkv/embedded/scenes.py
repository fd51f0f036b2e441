"""Random pictures: shapes and four-digit numbers on a grid of cells over a textured background.

A :class:`~lightkv.embedded.canvas.Canvas` says how many patches of 8 pixels a picture has (``N``)
and how they form cells; every patch belongs to exactly one cell. A shape stands anywhere inside
its cell; a number occupies four neighbouring patches of one row, one digit per patch. Objects never
overlap. Everything is vectorised over the batch ``B`` of pictures on one canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lightkv.embedded.canvas import PATCH, SQUARE, Canvas, Index
from lightkv.embedded.vocabulary import COLORS, SHAPES

Array = NDArray[np.float32]

EMPTY: Final = -1
NUMBER: Final = len(SHAPES)
DIGIT_COUNT: Final = 4

_PALETTE: Final = (
    np.array(
        [[222, 42, 38], [44, 178, 66], [52, 84, 232], [236, 214, 48], [168, 62, 198], [240] * 3],
        np.float32,
    )
    / 255
)
_GLYPH_ROWS: Final = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_GLYPHS: Final = np.array(
    [[[row >> (4 - bit) & 1 for bit in range(5)] for row in rows] for rows in _GLYPH_ROWS],
    np.float32,
)
_WINDOW: Final = 40
_MIN_COVER: Final = 0.12
_LARGEST_SIDE: Final = 192
_CELLS_A_NUMBER: Final = 3


@dataclass(frozen=True)
class Scenes:
    """A batch of pictures as data, ``C`` cells each, numbered in reading order.

    Attributes:
        kind: ``(B, C)``, -1 empty, 0-5 a shape, 6 a number.
        color: ``(B, C)``, index into ``COLORS`` (0 where empty).
        digits: ``(B, C, 4)``, the digits of a number (0 elsewhere).
        radius: ``(B, C)``, half the size of a shape in pixels.
        center: ``(B, C, 2)``, (x, y) of a shape in pixels.
        corner: ``(B, C, 2)``, (row, column) of the first patch of a number.
        canvas: What they are drawn on.
    """

    kind: Index
    color: Index
    digits: Index
    radius: Array
    center: Array
    corner: Index
    canvas: Canvas = SQUARE

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class PatchLabels:
    """What every patch shows, each ``(B, N)``; 0 means nothing, otherwise index + 1.

    ``center`` marks one patch per object (a shape's middle, a number's first digit) with its kind.
    ``row`` and ``column`` name the grid row and column of the object the patch belongs to.
    """

    color: Index
    kind: Index
    digit: Index
    center: Index
    place: Index
    row: Index
    column: Index


def sample(
    rng: np.random.Generator,
    count: int,
    *,
    shapes: tuple[int, int] = (3, 6),
    numbers: tuple[int, int] = (1, 2),
    canvas: Canvas = SQUARE,
) -> Scenes:
    """Draw ``count`` scenes with inclusive ranges for how many shapes and numbers they hold.

    A canvas of few cells holds at most one number for three cells, and as many shapes as fit.

    Shapes use 2-5 of the kinds and 2-5 of the colors, so that both repeat inside a picture. The
    numbers of a picture have different colors, which shapes may share.
    """
    most_numbers = min(numbers[1], canvas.cells // _CELLS_A_NUMBER)
    kind = np.full((count, canvas.cells), EMPTY, np.int64)
    color = np.zeros((count, canvas.cells), np.int64)
    for b in range(count):
        n_numbers = int(rng.integers(min(numbers[0], most_numbers), most_numbers + 1))
        most_shapes = min(shapes[1], canvas.cells - n_numbers)
        n_shapes = int(rng.integers(min(shapes[0], most_shapes), most_shapes + 1))
        cells = rng.permutation(canvas.cells)
        kinds = rng.permutation(len(SHAPES))[: rng.integers(2, 6)]
        colors = rng.permutation(len(COLORS))[: rng.integers(2, 6)]
        for_shapes = cells[:n_shapes]
        for_numbers = cells[n_shapes : n_shapes + n_numbers]
        kind[b, for_shapes] = kinds[rng.integers(0, len(kinds), n_shapes)]
        color[b, for_shapes] = colors[rng.integers(0, len(colors), n_shapes)]
        kind[b, for_numbers] = NUMBER
        color[b, for_numbers] = rng.permutation(len(COLORS))[:n_numbers]
    digits = rng.integers(0, 10, (*kind.shape, DIGIT_COUNT)) * (kind == NUMBER)[..., None]
    return place(rng, kind, color, digits, canvas)


def place(
    rng: np.random.Generator, kind: Index, color: Index, digits: Index, canvas: Canvas
) -> Scenes:
    """Choose size and position of every object inside its cell; arguments as in `Scenes`."""
    count, cells = kind.shape
    down, across = np.divmod(np.arange(cells), canvas.cells_across)
    top, bottom = canvas.row_edges[down], canvas.row_edges[down + 1]
    left, right = canvas.column_edges[across], canvas.column_edges[across + 1]
    low = np.stack([left, top], -1) * PATCH
    high = np.stack([right, bottom], -1) * PATCH
    radius = 8.5 + 6.5 * rng.random((count, cells))
    widest = ((high - low).min(-1) - 2) / 2.24
    radius = np.minimum(radius, widest).astype(np.float32)
    reach = 1.12 * radius[..., None] + 0.5
    unit = rng.random((count, cells, 2), np.float32)
    center = low + reach + unit * (high - low - 2 * reach)
    rows = top + rng.integers(0, bottom - top, (count, cells))
    columns = left + rng.integers(0, right - left - DIGIT_COUNT + 1, (count, cells))
    corner = np.stack([rows, columns], -1)
    return Scenes(kind, color, digits, radius, center.astype(np.float32), corner, canvas)


def render(
    rng: np.random.Generator, scenes: Scenes, ground: Array | None = None
) -> NDArray[np.uint8]:
    """Draw the scenes over ``ground`` (default: one of their own each): ``(B, H, W, 3)`` bytes."""
    count, cells = scenes.kind.shape
    canvas = background(rng, count, scenes.canvas) if ground is None else ground.copy()
    gain = 0.85 + 0.15 * rng.random((count, cells, 1), np.float32)
    shift = 0.05 * (rng.random((count, cells, 3), np.float32) - 0.5)
    color = _PALETTE[scenes.color] * gain + shift
    b, cell, y, x, alpha = _shape_pixels(scenes)
    under = canvas[b, y, x]
    canvas[b, y, x] = under + alpha[:, None] * (color[b, cell] - under)
    _draw_numbers(rng, scenes, color, canvas)
    noise = rng.integers(0, 256, (*canvas.shape[:3], 1), dtype=np.uint8).astype(np.float32)
    canvas += (noise - 127.5) * (0.1 / 255)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def background(rng: np.random.Generator, count: int, canvas: Canvas = SQUARE) -> Array:
    """Dark textured backgrounds without objects, ``(B, H, W, 3)`` in 0-1."""
    pool = _textures(SQUARE.width if canvas == SQUARE else _LARGEST_SIDE)
    texture = pool[rng.integers(0, len(pool), count)]
    flip, turn = rng.random((2, count, 1, 1)) < 0.5
    texture = np.where(flip, texture[:, ::-1], texture)
    texture = np.where(turn, texture.transpose(0, 2, 1), texture)
    texture = texture[:, : canvas.height, : canvas.width]
    base = 0.22 + 0.16 * rng.random((count, 1, 1, 3), np.float32)
    tint = 0.03 + 0.05 * rng.random((count, 1, 1, 3), np.float32)
    return (base + tint * texture[..., None]).astype(np.float32)


def coverage(scenes: Scenes) -> tuple[Index, Index]:
    """Which object every patch shows.

    Returns:
        ``owner`` ``(B, rows, columns)``, the grid cell of the object on the patch or -1; a patch
        counts as covered when an eighth of its pixels are. ``place`` likewise, 1-4 for the first
        to fourth digit of a number, else 0.
    """
    canvas = scenes.canvas
    b, _, y, x, alpha = _shape_pixels(scenes)
    cover = np.zeros((len(scenes), canvas.height, canvas.width), np.float32)
    cover[b, y, x] = alpha
    share = cover.reshape(-1, canvas.rows, PATCH, canvas.columns, PATCH).mean((2, 4))
    owner = np.where(share > _MIN_COVER, canvas.cell_of_patch, -1)
    place = np.zeros(owner.shape, np.int64)
    b, cell = np.nonzero(scenes.kind == NUMBER)
    row, column = scenes.corner[b, cell].T
    for position in range(DIGIT_COUNT):
        owner[b, row, column + position] = cell
        place[b, row, column + position] = position + 1
    return owner, place


def patch_labels(scenes: Scenes) -> PatchLabels:
    """Per-patch supervision of the vision tower, each field ``(B, N)``."""
    canvas = scenes.canvas
    owner, place = coverage(scenes)
    covered, at = owner >= 0, np.maximum(owner, 0)
    b = np.arange(len(scenes))[:, None, None]
    digit = np.where(place > 0, scenes.digits[b, at, np.maximum(place - 1, 0)] + 1, 0)
    center = np.zeros(owner.shape, np.int64)
    bs, cell = np.nonzero((scenes.kind >= 0) & (scenes.kind < NUMBER))
    x, y = (scenes.center[bs, cell] // PATCH).astype(np.int64).T
    center[bs, y, x] = scenes.kind[bs, cell] + 1
    center[place == 1] = NUMBER + 1
    fields = (
        np.where(covered, scenes.color[b, at] + 1, 0),
        np.where(covered, scenes.kind[b, at] + 1, 0),
        digit,
        center,
        place,
        np.where(covered, canvas.row_words[at // canvas.cells_across] + 1, 0),
        np.where(covered, canvas.column_words[at % canvas.cells_across] + 1, 0),
    )
    return PatchLabels(*(field.reshape(len(scenes), canvas.patches) for field in fields))


def _shape_pixels(scenes: Scenes) -> tuple[Index, Index, Index, Index, Array]:
    """Every pixel touched by a shape: picture, cell, y, x ``(P,)`` and opacity ``(P,)``."""
    b, cell = np.nonzero((scenes.kind >= 0) & (scenes.kind < NUMBER))
    radius = scenes.radius[b, cell][:, None, None]
    center = scenes.center[b, cell]
    start = np.floor(center).astype(np.int64) - _WINDOW // 2
    grid = np.arange(_WINDOW)
    u = (start[:, :1] + grid + 0.5 - center[:, :1])[:, None, :] / radius
    v = (start[:, 1:] + grid + 0.5 - center[:, 1:])[:, :, None] / radius
    distance = np.empty((len(b), _WINDOW, _WINDOW), np.float32)
    kinds = scenes.kind[b, cell]
    for kind in range(len(SHAPES)):
        of_kind = kinds == kind
        distance[of_kind] = _signed_distance(kind, u[of_kind], v[of_kind])
    alpha = np.clip(0.5 - distance * radius, 0, 1).astype(np.float32)
    n, dy, dx = np.nonzero(alpha)
    return b[n], cell[n], start[n, 1] + dy, start[n, 0] + dx, alpha[n, dy, dx]


def _signed_distance(kind: int, u: Array, v: Array) -> Array:
    """Distance from the outline of a unit shape, negative inside; ``u`` and ``v`` broadcast."""
    au, av = np.abs(u), np.abs(v)
    match SHAPES[kind]:
        case "circle":
            result = np.hypot(u, v) - 1
        case "square":
            result = np.maximum(au, av) - 0.85
        case "triangle":
            result = np.maximum(v - 0.8, (au * 1.8 - (v + 1)) / 2.06)
        case "diamond":
            result = (au + av - 1.1) * 0.707
        case "cross":
            result = np.minimum(np.maximum(au - 1, av - 0.34), np.maximum(au - 0.34, av - 1))
        case _:
            result = np.abs(np.hypot(u, v) - 0.75) - 0.24
    return np.asarray(result, np.float32)


def _draw_numbers(rng: np.random.Generator, scenes: Scenes, color: Array, canvas: Array) -> None:
    """Write the digits onto ``canvas`` ``(B, H, W, 3)``, each inside one patch."""
    b, cell = np.nonzero(scenes.kind == NUMBER)
    jitter_x = rng.integers(1, 3, (len(b), DIGIT_COUNT))
    jitter_y = rng.integers(0, 2, (len(b), 1))
    row, column = scenes.corner[b, cell].T
    top = row[:, None] * PATCH + jitter_y
    left = (column[:, None] + np.arange(DIGIT_COUNT)) * PATCH + jitter_x
    y = top[:, :, None, None] + np.arange(7)[:, None]
    x = left[:, :, None, None] + np.arange(5)
    glyph = _GLYPHS[scenes.digits[b, cell]][..., None]
    index = (b[:, None, None, None], y, x)
    under = canvas[index] * 0.75
    canvas[index] = under + glyph * (color[b, cell][:, None, None, None] - under)


@lru_cache(maxsize=2)
def _textures(side: int, count: int = 192) -> Array:
    """Smooth random fields of four scales, ``(count, side, side)``, the same in every process."""
    rng = np.random.default_rng(7)
    total = np.zeros((count, side, side), np.float32)
    for scale, weight in ((4, 1.0), (8, 0.7), (16, 0.5), (32, 0.35)):
        knots = rng.standard_normal((count, scale + 1, scale + 1), np.float32)
        at = np.linspace(0, scale, side, endpoint=False)
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32)
        field = knots[:, low] * (1 - part)[:, None] + knots[:, low + 1] * part[:, None]
        total += weight * (field[..., low] * (1 - part) + field[..., low + 1] * part)
    return total
