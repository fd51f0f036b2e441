"""Areas of pictures, as shares of their width and height."""

from __future__ import annotations

from typing import Any

from lightkv.errors import UnsupportedError

#: Left, top, right and bottom; below 0 or above 1 where a picture was padded.
Box = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def tiles(rows: int, cols: int) -> list[Box]:
    """Tiles of equal size that cover a picture, row by row."""
    return [
        (col / cols, row / rows, (col + 1) / cols, (row + 1) / rows)
        for row in range(rows)
        for col in range(cols)
    ]


def tiled_with_whole(rows: int, cols: int, grids: int) -> list[Box]:
    """Tiles, then the whole picture once more if there is a grid left for it.

    Raises:
        UnsupportedError: If the numbers don't fit: the picture was processed with other settings.
    """
    boxes = tiles(rows, cols)
    if grids not in (len(boxes), len(boxes) + 1):
        raise UnsupportedError(
            f"{grids} tiles of a picture that the image processor would cut into {rows} x {cols}; "
            "where they lie is not known"
        )
    return [*boxes, WHOLE][:grids]


def centred(size: tuple[float, float], shown: tuple[float, float]) -> Box:
    """A window in the middle of a picture, larger than it where it was padded.

    Args:
        size: (height, width) of the picture.
        shown: (height, width) of the window in the same unit.
    """
    top, left = (0.5 - part / (2 * whole) for part, whole in zip(shown, size, strict=True))
    return left, top, 1 - left, 1 - top


def within(inner: Box, outer: Box) -> Box:
    """A box given in shares of another one, in shares of the picture."""
    left, top, right, bottom = outer
    width, height = right - left, bottom - top
    return (
        left + inner[0] * width,
        top + inner[1] * height,
        left + inner[2] * width,
        top + inner[3] * height,
    )


def pixels(setting: Any, name: str) -> int | None:
    """One of "height", "width", "shortest_edge", ... of a size in an image processor's settings."""
    value = setting.get(name) if isinstance(setting, dict) else getattr(setting, name, None)
    return None if value is None else int(value)
