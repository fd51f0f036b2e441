"""Configuration and initial weights of the encoder-free model, a stock Fuyu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.fuyu.vocabulary import KNOWN
from lightkv.embedded.initial import draw_matrices, scale_outputs

if TYPE_CHECKING:
    from transformers import FuyuConfig, FuyuForCausalLM

    from lightkv.embedded.student import Student


@dataclass(frozen=True)
class Architecture:
    """Sizes of the model; the defaults are the shipped one.

    Attributes:
        seeing: Layers after which training asks the vision tokens for what their patch shows.
    """

    hidden: int = 128
    layers: int = 10
    heads: int = 4
    intermediate: int = 512
    seeing: int = 4

    def student(self, seed: int) -> Student:
        """A model of these sizes with random weights, to be trained."""
        from lightkv.embedded.fuyu.lean import LeanModel

        return LeanModel(build_model(self, seed), self.seeing)


def build_config(sizes: Architecture) -> FuyuConfig:
    """The Hugging Face configuration for ``sizes``."""
    from transformers import FuyuConfig

    marks: dict[str, Any] = {
        "bos_token_id": words.BOS_ID,
        "eos_token_id": words.EOS_ID,
        "pad_token_id": words.PAD_ID,
        "tie_word_embeddings": True,
    }
    text = {
        "model_type": "persimmon",
        "vocab_size": len(KNOWN),
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "max_position_embeddings": 1024,
        "hidden_act": "relu2",
        "qk_layernorm": True,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
        **marks,
    }
    return FuyuConfig(
        text_config=text,
        image_size=SQUARE.width,
        patch_size=PATCH,
        image_token_id=words.IMAGE_ID,
        **marks,
    )


def build_model(sizes: Architecture, seed: int) -> FuyuForCausalLM:
    """A model with scaled random weights: fan-in normal, residual outputs / sqrt(2 depth).

    Keys start correlated with the queries (mimetic initialisation, Trockman and Kolter, 2023), so
    that attention begins as similarity.
    """
    from transformers import FuyuForCausalLM

    torch.manual_seed(seed)
    model = FuyuForCausalLM(build_config(sizes))
    draw_matrices(model)
    scale_outputs(model, ("self_attn.dense.weight", "dense_4h_to_h.weight"), sizes.layers)
    with torch.no_grad():
        decoder: Any = model.model.language_model
        for layer in decoder.layers:
            # rows of (heads, 3, d): a head's queries, keys and values
            fused = layer.self_attn.query_key_value.weight.view(sizes.heads, 3, -1, sizes.hidden)
            fused[:, 1].add_(fused[:, 0]).mul_(math.sqrt(0.5))
    generation: Any = model.generation_config
    generation.max_new_tokens = 64
    return model
