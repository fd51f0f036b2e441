"""Where the shipped checkpoints lie; apart, because loading a model needs nothing else of here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lightkv.errors import ModelError

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
"""Folder of the square model's checkpoint."""
NATIVE_CHECKPOINT: Final = Path(__file__).parent / "qwen" / "checkpoint"
"""Folder of the native-resolution model's checkpoint."""
FUYU_CHECKPOINT: Final = Path(__file__).parent / "fuyu" / "checkpoint"
"""Folder of the encoder-free model's checkpoint."""
SHIPPED: Final = {
    "embedded": CHECKPOINT,
    "embedded-qwen": NATIVE_CHECKPOINT,
    "embedded-fuyu": FUYU_CHECKPOINT,
}
"""Folders of the shipped checkpoints by name."""
WEIGHTS: Final = "model.safetensors"
_TRAINED_BY: Final = {
    "embedded-qwen": "lightkv train-embedded --model qwen --minutes 15 --device cuda --workers 14",
    "embedded-fuyu": "lightkv train-embedded --model fuyu",
}


def ships(name: str) -> bool:
    """Whether the weights of an embedded model are here, not its recipe alone."""
    return (SHIPPED[name] / WEIGHTS).is_file()


def shipped(name: str) -> Path:
    """Folder of an embedded model.

    Raises:
        ModelError: If only its recipe is here, and no weights; says how to train them.
    """
    if name in _TRAINED_BY and not ships(name):
        raise ModelError(
            f"the weights of {name!r} don't ship yet, only its recipe: train them with "
            f"`{_TRAINED_BY[name]} --out FOLDER` (it needs torch, transformers, numpy, Pillow, "
            "safetensors, tokenizers, tqdm and click; hours on a CPU, minutes on a GPU), "
            "then load them with lightkv.load('FOLDER')"
        )
    return SHIPPED[name]
