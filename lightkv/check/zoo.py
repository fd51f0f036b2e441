"""Tiny models of every family with random weights, and prompts for them.

A tiny model has four decoder layers and a few thousand weights; everything that its family does
differently (tiles, deepstack, windows, videos, separators) is in it or in its prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lightkv.check import prompts
from lightkv.check.configs import CONFIGS
from lightkv.check.prompts import Row
from lightkv.families import family_of
from lightkv.vlm import VLM


@dataclass(frozen=True)
class TinyModel:
    """One entry of the zoo.

    Attributes:
        name: Of the entry; several may share a family.
        config: Makes the config.
        rows: Makes prompts of one row each: a question about one picture, a longer one, one about
            two pictures or a video.
    """

    name: str
    config: Callable[[], Any]
    rows: Callable[[Any], list[Row]]

    def build(self, attention: str = "sdpa", seed: int = 0) -> VLM:
        """The model with random weights."""
        return random_model(self.name, self.config(), attention, seed)


def random_model(
    name: str, config: Any, attention: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> VLM:
    """A model with random weights, on torch's default device, that never ends an answer."""
    from transformers import AutoModelForImageTextToText

    config._attn_implementation = attention
    make: Any = AutoModelForImageTextToText.from_config
    model = make(config, attn_implementation=attention, dtype=dtype)
    randomize(model, seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return VLM(name, model.eval(), None, family_of(config.model_type))


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that logits tell inputs apart."""
    first = next(model.parameters())
    generator = torch.Generator(first.device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter.shape[-1] if parameter.dim() == 2 else parameter[0].numel()
            scale = 1.0 if "embed_tokens" in name else 1.6 / math.sqrt(fan_in)
            parameter.data.normal_(0, scale, generator=generator)
        elif "norm" not in name.lower():
            parameter.data.normal_(0, 0.1, generator=generator)


ZOO: dict[str, TinyModel] = {
    name: TinyModel(name, config, prompts.rows_of(name)) for name, config in CONFIGS.items()
}
