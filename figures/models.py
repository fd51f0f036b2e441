"""What comes before a study: a model, named so that a notebook finds it, and refused in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lightkv import VLM

EMBEDDED: Final = "embedded"


def open_model(name: str = EMBEDDED, device: str = "cpu", dtype: str | None = None) -> VLM:
    """The embedded model, or the one of a hub id or folder.

    Args:
        name: "embedded", a hub id or a folder.
        device: Where to put it.
        dtype: Of its numbers, None for what suits the device.

    Raises:
        InvalidValueError, ModelError, UnknownNameError: As :func:`lightkv.load`.
    """
    from lightkv import load

    return load(None if name == EMBEDDED else name, device=device, dtype=dtype)


def check_model(name: str | None, device: str | None, dtype: str | None) -> None:
    """Refuse what no notebook could load, without reading weights; None is the default.

    Raises:
        ModelError: The model's files, config or processor can't be used, or are not here.
        InvalidValueError: There is no such device or number type here.
    """
    if name is not None and name != EMBEDDED:
        from lightkv.loading import check_source

        check_source(name)
    if device is not None or dtype is not None:
        from lightkv.loading import device_named, dtype_named

        dtype_named(dtype, device_named(device or "cpu"))
