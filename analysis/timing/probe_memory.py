"""How much memory a probe adds to a prefill, measured on a model of a real one's dimensions.

The model has random weights, a preset's decoder dimensions and a vision tower of next to nothing,
so what is measured is the decoder. A model of fewer layers than the real one has less memory of
its own while a probe adds the same, so the share found there is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from analysis.timing.memory import memory_kind, peak_rise
from lightkv.cost.presets import preset
from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    from transformers import LlavaConfig

    from lightkv import VLM
    from lightkv.cost.presets.shape import TextShape

_PATCH = 14
_SYSTEM, _QUESTION = 8, 40
_IMAGE_TOKEN = 3


@dataclass(frozen=True)
class ProbeMemory:
    """Peak memory of a prefill with and without a probe.

    Attributes:
        shape: Preset that the decoder's dimensions are of.
        layers: Layers that were built.
        tokens: Vision tokens of the prompt.
        dtype, device: Arithmetic.
        quantities: What was captured.
        weights: Bytes of the model.
        plain: Peak of the model alone, weights included.
        probed: Peak with the probe.
        kind: How peaks were measured.
    """

    shape: str
    layers: int
    tokens: int
    dtype: str
    device: str
    quantities: tuple[str, ...]
    weights: int
    plain: int
    probed: int
    kind: str

    @property
    def added(self) -> float:
        """Memory that the probe adds, as a share of the model's own peak."""
        return (self.probed - self.plain) / self.plain


def measure_probe_memory(
    shape: str = "llava-1.5-7b",
    *,
    layers: int = 2,
    tokens: int = 2304,
    quantities: Sequence[str] = ("block_sum",),
    device: str = "cpu",
    dtype: str = "float32",
) -> ProbeMemory:
    """Measure a prefill of one prompt, plain and probed in all layers.

    Args:
        shape: A preset.
        layers: Decoder layers to build; what a probe adds does not grow with them.
        tokens: Vision tokens, a square number.
        quantities: What to capture.
        device: "cpu" or a CUDA device.
        dtype: Of the weights.

    Raises:
        InvalidValueError: If ``tokens`` is not a square or ``layers`` is out of range.
        UnknownNameError: If the preset or a quantity is unknown.
    """
    from analysis.probing.probe import probe_inputs
    from analysis.probing.quantities import quantities as known

    wanted = known(list(quantities))
    vlm, inputs = build(shape, layers=layers, tokens=tokens, device=device, dtype=dtype)
    weights = sum(p.numel() * p.element_size() for p in vlm.model.parameters())

    def plain() -> None:
        vlm.model.generate(**inputs, max_new_tokens=1, do_sample=False)

    def probed() -> None:
        probe_inputs(vlm, [inputs], wanted)

    # The first calls load kernels and attach the graph.
    with torch.no_grad():
        plain()
        probed()
        alone = weights + peak_rise(plain, vlm.device)
        together = weights + peak_rise(probed, vlm.device)
    names, kind = tuple(one.name for one in wanted), memory_kind(vlm.device)
    return ProbeMemory(shape, layers, tokens, dtype, device, names, weights, alone, together, kind)


def build(
    shape: str, *, layers: int, tokens: int, device: str = "cpu", dtype: str = "float32"
) -> tuple[VLM, dict[str, Tensor]]:
    """A model with random weights in a preset's dimensions, and a prompt with one image for it.

    Arguments and errors as for :func:`measure_probe_memory`.
    """
    from transformers import LlavaForConditionalGeneration

    from lightkv.families import family_of
    from lightkv.loading import DTYPES
    from lightkv.vlm import VLM

    text, side = preset(shape).shape.text, math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise InvalidValueError("tokens", tokens, "a square number, such as 2304")
    if not 1 <= layers <= text.layers:
        raise InvalidValueError("layers", layers, f"from 1 to {text.layers}")
    if dtype not in DTYPES:
        raise InvalidValueError("dtype", dtype, ", ".join(DTYPES))
    with torch.device(device):
        make: Any = LlavaForConditionalGeneration._from_config
        model = make(_config(text, layers, side), dtype=DTYPES[dtype])
    ids = torch.full((1, _SYSTEM + tokens + _QUESTION), _IMAGE_TOKEN + 1)
    ids[:, _SYSTEM : _SYSTEM + tokens] = _IMAGE_TOKEN
    pixels = torch.zeros(1, 3, side * _PATCH, side * _PATCH, dtype=DTYPES[dtype])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    vlm = VLM(f"{shape}, {layers} layers", model.eval(), None, family_of("llava"))
    return vlm, {name: value.to(device) for name, value in inputs.items()}


def _config(text: TextShape, layers: int, side: int) -> LlavaConfig:
    """A LLaVA with that decoder, and a tower of next to nothing for ``side`` x ``side`` patches."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    fields: dict[str, Any] = text.config_fields(layers)
    decoder = LlamaConfig(
        **fields,
        vocab_size=text.vocab,
        max_position_embeddings=2 * side * side + 512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=side * _PATCH,
        patch_size=_PATCH,
    )
    options: dict[str, Any] = {"image_token_id": _IMAGE_TOKEN}
    config = LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        **options,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    config._attn_implementation = "sdpa"
    return config
