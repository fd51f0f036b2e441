"""What every notebook needs before a study: a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightkv.errors import InvalidValueError, ModelError

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


def check_model(name: str | None, device: str | None) -> None:
    """Refuse what no notebook could load, without loading anything; None is the default.

    Raises:
        ModelError: A folder is named that is not there or holds no model.
        InvalidValueError: There is no such device here.
    """
    if name is not None and name != EMBEDDED:
        folder = Path(name).expanduser()
        named_as_path = name.startswith((".", "/", "~"))
        if (named_as_path or folder.is_dir()) and not (folder / "config.json").is_file():
            raise ModelError(f"{name!r} holds no model: there is no config.json in it")
    if device is not None and device != "cpu":
        import torch

        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise InvalidValueError("--device", device, "'cpu', 'cuda', 'cuda:N', 'mps'") from error
        count = torch.cuda.device_count()
        if chosen.type == "cuda" and (chosen.index or 0) >= count:
            raise InvalidValueError("--device", device, f"one of the {count} CUDA devices here")
