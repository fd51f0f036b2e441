"""What every notebook needs before a study: a model and a store."""

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
