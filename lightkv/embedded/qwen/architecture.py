"""Configuration and initial weights of the native-resolution model, a stock Qwen3-VL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH
from lightkv.embedded.initial import draw_matrices, grid_embedding, scale_outputs

if TYPE_CHECKING:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

MERGE: Final = 2
"""The tower's patches a side of one vision token."""
FRAMES: Final = 2
"""Frames of a video that share one vision token."""
ROPE_BASE: Final = 10_000.0


@dataclass(frozen=True)
class Architecture:
    """Sizes of the model; the defaults are the shipped one.

    Attributes:
        positions: Learned positions a side, resampled to the grid of a picture.
        deepstack: Tower layers whose features are added after the first decoder layers.
        sections: Frequencies of a head for time, height and width.
    """

    hidden: int = 128
    layers: int = 16
    heads: int = 4
    key_heads: int = 2
    head_size: int = 32
    intermediate: int = 384
    sections: tuple[int, int, int] = (6, 5, 5)
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 3
    vision_intermediate: int = 256
    positions: int = 16
    deepstack: tuple[int, ...] = (0, 1)


def build_config(sizes: Architecture) -> Qwen3VLConfig:
    """The Hugging Face configuration for ``sizes``."""
    from transformers import Qwen3VLConfig

    vision = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_hidden,
        "intermediate_size": sizes.vision_intermediate,
        "num_heads": sizes.vision_heads,
        "patch_size": PATCH // MERGE,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "out_hidden_size": sizes.hidden,
        "num_position_embeddings": sizes.positions**2,
        "deepstack_visual_indexes": list(sizes.deepstack),
    }
    text = {
        "vocab_size": len(words.ALL_WORDS),
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_heads,
        "head_dim": sizes.head_size,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROPE_BASE,
            "mrope_section": list(sizes.sections),
            "mrope_interleaved": True,
        },
        "bos_token_id": words.BOS_ID,
        "eos_token_id": words.EOS_ID,
        "pad_token_id": words.PAD_ID,
        "tie_word_embeddings": True,
    }
    return Qwen3VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=words.IMAGE_ID,
        video_token_id=words.VIDEO_ID,
        vision_start_token_id=words.VISION_START_ID,
        vision_end_token_id=words.VISION_END_ID,
        tie_word_embeddings=True,
    )


def build_model(sizes: Architecture, seed: int) -> Qwen3VLForConditionalGeneration:
    """A model with scaled random weights: fan-in normal, residual outputs / sqrt(2 depth).

    Decoder keys start correlated with the queries of their group (mimetic initialisation, Trockman
    and Kolter, 2023), so that attention begins as similarity. What deepstack adds starts small.
    """
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(build_config(sizes))
    draw_matrices(model)
    scale_outputs(model, ("o_proj.weight", "down_proj.weight"), sizes.layers)
    scale_outputs(model, ("attn.proj.weight", "mlp.linear_fc2.weight"), sizes.vision_layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "deepstack_merger_list" in name and name.endswith("linear_fc2.weight"):
                weight.mul_(1 / math.sqrt(2 * sizes.layers))
            elif name.endswith("pos_embed.weight"):
                weight.copy_(0.5 * grid_embedding(sizes.positions, sizes.vision_hidden))
        for layer in model.model.language_model.layers:
            _similar_keys(layer.self_attn, sizes)
    model.generation_config.max_new_tokens = 64
    return model


def _similar_keys(attention: Any, sizes: Architecture) -> None:
    """Mix the mean query of every group of heads into its keys."""
    queries, keys = attention.q_proj.weight, attention.k_proj.weight
    group = sizes.heads // sizes.key_heads
    # (heads * d, D) to (key heads, group, d, D)
    grouped = queries.view(sizes.key_heads, group, sizes.head_size, sizes.hidden)
    keys.add_(grouped.sum(1).flatten(0, 1), alpha=group**-0.5).mul_(math.sqrt(0.5))
