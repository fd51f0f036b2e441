"""What comes before a study: models, named so that a notebook finds them, and refused in time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from lightkv.embedded.location import SHIPPED

if TYPE_CHECKING:
    from lightkv import VLM

EMBEDDED: Final = "embedded"
"""The square LLaVA."""

NATIVE: Final = "embedded-qwen"
"""The Qwen3-VL for pictures of any aspect ratio, videos and long questions."""

ENCODER_FREE: Final = "embedded-fuyu"
"""The Fuyu, which reads patches without a vision encoder."""


def open_model(name: str = EMBEDDED, device: str = "cpu", dtype: str | None = None) -> VLM:
    """An embedded model, or the one of a hub id or folder.

    Args:
        name: "embedded", "embedded-qwen", "embedded-fuyu", a hub id or a folder.
        device: Where to put it.
        dtype: Of its numbers, None for what suits the device.

    Raises:
        InvalidValueError, ModelError, UnknownNameError: As :func:`lightkv.load`.
    """
    from lightkv import load

    return load(None if name == EMBEDDED else name, device=device, dtype=dtype)


def opener(device: str = "cpu", dtype: str | None = None) -> Callable[[str], VLM]:
    """:func:`open_model` on a device, which loads each model once."""
    return cache(lambda name: open_model(name, device, dtype))


def named(model: str) -> str:
    """The name of an embedded model as it is, else the absolute path of a folder, or a hub id.

    Raises:
        ModelError: There is no such folder, or the embedded model's weights don't ship yet.
    """
    from lightkv.loading import located

    place = located(model)
    return model if model in SHIPPED else place


def check_model(name: str | None, device: str | None, dtype: str | None) -> None:
    """Refuse what no notebook could load, without reading weights; None is the default.

    Raises:
        ModelError: The model's files, config or processor can't be used, or are not here.
        InvalidValueError: There is no such device or number type here.
    """
    if name is not None and name not in SHIPPED:
        from lightkv.loading import check_source

        check_source(name)
    if device is not None or dtype is not None:
        from lightkv.loading import device_named, dtype_named

        dtype_named(dtype, device_named(device or "cpu"))
