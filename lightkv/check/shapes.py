"""Models with random weights whose decoder has the dimensions of a real one.

Vision tower, vocabulary and pictures are those of the tiny models: what compression touches is the
decoder.
"""

from __future__ import annotations

from typing import Any

import torch

from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import TinyModel, random_model
from lightkv.cost.presets import preset, presets
from lightkv.cost.presets.shape import TextShape
from lightkv.errors import InvalidValueError, UnknownNameError
from lightkv.vlm import VLM

_MISTRAL = "mistral"


def shapes() -> tuple[str, ...]:
    """Presets that can be built: those of the families in transformers."""
    return tuple(name for name in presets() if preset(name).family in ZOO)


def build_shape(
    name: str,
    *,
    layers: int | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    attention: str = "sdpa",
) -> tuple[VLM, TinyModel]:
    """A preset's decoder with random weights, and the tiny model whose prompts fit it.

    Args:
        name: One of :func:`shapes`.
        layers: Decoder layers to build, at least 4; None for all.
        device: Where the weights are made.
        dtype: Of the weights; None is float32 on the CPU and bfloat16 elsewhere.
        attention: "sdpa" or "eager".

    Raises:
        UnknownNameError: If there is no such preset, or its family is not in transformers.
        InvalidValueError: If ``layers`` is out of range, or there is no such device or dtype.
    """
    from lightkv.loading import device_named, dtype_named

    if name not in shapes():
        raise UnknownNameError("shape", name, shapes())
    imitated = preset(name)
    text = imitated.shape.text
    depth = text.layers if layers is None else layers
    if not 4 <= depth <= text.layers:
        raise InvalidValueError("layers", layers, f"4 to {text.layers}")
    mistral = _MISTRAL in name and f"{imitated.family}_{_MISTRAL}" in ZOO
    entry = ZOO[f"{imitated.family}_{_MISTRAL}" if mistral else imitated.family]
    config = entry.config()
    _resize(config, text, depth)
    where = device_named(device)
    number_type = dtype_named(dtype, where)
    with torch.device(where):
        return random_model(name, config, attention, dtype=number_type), entry


def _resize(config: Any, text: TextShape, layers: int) -> None:
    """Give a tiny config a real decoder."""
    decoder = config.get_text_config()
    for name, value in text.config_fields(layers).items():
        setattr(decoder, name, value)
    if getattr(decoder, "layer_types", None) is not None:
        decoder.layer_types = [decoder.layer_types[0]] * layers
    rope = getattr(decoder, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        # A quarter of the pairs for time, the rest for rows and columns alike.
        pairs = text.head_dim // 2
        across = 3 * pairs // 8
        rope["mrope_section"] = [pairs - 2 * across, across, across]
    tower = config.vision_config
    if hasattr(tower, "out_hidden_size"):
        tower.out_hidden_size = text.hidden
