"""Ranges of hyperparameters and arguments: what is out of range is refused with what is allowed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightkv.contract.types import check_type, plain
from lightkv.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    from lightkv.contract.layout import TokenLayout
    from lightkv.contract.view import ModelFacts


def check_stages(layers: Sequence[int], facts: ModelFacts, *, first: int = 0) -> None:
    """Refuse stage layers that a model does not have.

    Args:
        layers: 0-based layers after which a stage acts; -1 is before the first layer.
        facts: The model. A stage after its last layer would change nothing.
        first: Smallest layer allowed.

    Raises:
        InvalidValueError: If there is no layer, they don't rise, or one is out of range.
    """
    check_type("layers", plain(layers), tuple[int, ...])
    last = facts.layers - 2
    allowed = f"at least one, strictly ascending, between {first} and {last}"
    rising = all(a < b for a, b in itertools.pairwise(layers))
    if not layers or not rising or layers[0] < first or layers[-1] > last:
        raise InvalidValueError("layers", tuple(layers), allowed)


def check_ratios(ratios: Sequence[float], stages: int, *, most: float = 0.5) -> None:
    """Refuse compression ratios that are not one per stage and within [0, most].

    Raises:
        InvalidValueError: See above; not-a-number is out of range too.
    """
    check_type("ratios", plain(ratios), tuple[float, ...])
    if len(ratios) != stages or not all(0 <= ratio <= most for ratio in ratios):
        raise InvalidValueError("ratios", tuple(ratios), f"{stages} numbers from 0 to {most}")


def check_windows(windows: Sequence[int], stages: int) -> None:
    """Refuse window counts that are not one per stage, at least 1 and never growing.

    Raises:
        InvalidValueError: See above.
    """
    check_type("windows", plain(windows), tuple[int, ...])
    falling = all(a >= b for a, b in itertools.pairwise(windows))
    if len(windows) != stages or not falling or min(windows) < 1:
        allowed = f"{stages} numbers of at least 1, none larger than the one before"
        raise InvalidValueError("windows", tuple(windows), allowed)


def check_share(name: str, share: float) -> None:
    """Refuse a share that is not above 0 and at most 1.

    Raises:
        InvalidValueError: See above.
    """
    check_type(name, plain(share), float)
    if not 0 < share <= 1:
        raise InvalidValueError(name, share, "above 0 and at most 1")


def check_count(name: str, count: int, least: int = 1) -> None:
    """Refuse a number below ``least``, or that is not whole.

    Raises:
        InvalidValueError: See above.
    """
    check_type(name, plain(count), int)
    if count < least:
        raise InvalidValueError(name, count, f"at least {least}")


def require_vision(layout: TokenLayout) -> None:
    """Refuse a prompt without an image.

    Raises:
        InputError: If a row of the batch holds no vision token.
    """
    blind = (~layout.vision.any(1)).nonzero()
    if len(blind):
        raise InputError(f"row {int(blind[0])} of the batch holds no image to compress")
