"""Shapes of what parts of a method return. (:mod:`lightkv.contract.checks` loads no torch.)"""

from __future__ import annotations

from torch import Tensor

from lightkv.errors import InvalidValueError


def check_shape(part: object, method: str, values: object, *shapes: tuple[int | None, ...]) -> None:
    """Refuse what a part of a method returned unless it is a tensor of an allowed shape.

    Args:
        part: What returned it; its class is named.
        method: Which of its methods.
        values: What was returned.
        shapes: Allowed shapes; None is any length.

    Raises:
        InvalidValueError: See above.
    """
    shape = tuple(values.shape) if isinstance(values, Tensor) else None
    if shape in shapes or any(_fits(shape, allowed) for allowed in shapes):
        return
    told = " or ".join(str(allowed).replace("None", "any") for allowed in shapes)
    raise InvalidValueError(
        f"what {type(part).__name__}.{method} returned",
        type(values).__name__ if shape is None else shape,
        f"a tensor of shape {told}",
    )


def _fits(shape: tuple[int, ...] | None, allowed: tuple[int | None, ...]) -> bool:
    return (
        shape is not None
        and len(shape) == len(allowed)
        and all(most in (None, size) for size, most in zip(shape, allowed, strict=True))
    )
