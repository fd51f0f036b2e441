"""Configuration and initial weights of the embedded model, a stock LLaVA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.initial import draw_matrices, grid_embedding, scale_outputs

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    from lightkv.embedded.student import Student


@dataclass(frozen=True)
class Architecture:
    """Sizes of the model; the defaults are the shipped one."""

    hidden: int = 128
    layers: int = 8
    heads: int = 4
    intermediate: int = 352
    vision_hidden: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    vision_intermediate: int = 384

    def student(self, seed: int) -> Student:
        """A model of these sizes with random weights, to be trained."""
        from lightkv.embedded.lean import LeanModel

        return LeanModel(build_model(self, seed))


def build_config(sizes: Architecture) -> LlavaConfig:
    """The Hugging Face configuration for ``sizes``."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_hidden,
        intermediate_size=sizes.vision_intermediate,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=SQUARE.width,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=sizes.vision_hidden,
    )
    text = LlamaConfig(
        vocab_size=len(words.WORDS),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=words.BOS_ID,
        eos_token_id=words.EOS_ID,
        pad_token_id=words.PAD_ID,
        rms_norm_eps=1e-5,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.IMAGE_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_seq_length=SQUARE.patches,
        tie_word_embeddings=True,
    )


def build_model(sizes: Architecture, seed: int) -> LlavaForConditionalGeneration:
    """A model with scaled random weights: fan-in normal, residual outputs / sqrt(2 depth).

    Decoder keys start correlated with the queries (mimetic initialisation, Trockman and Kolter,
    2023), so that attention begins as similarity: a question's words look at patches like them.
    """
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(build_config(sizes))
    draw_matrices(model)
    scale_outputs(model, ("o_proj.weight", "down_proj.weight"), sizes.layers)
    scale_outputs(model, ("out_proj.weight", "fc2.weight"), sizes.vision_layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("position_embedding.weight"):
                weight[:1] = 0
                weight[1:] = 0.5 * grid_embedding(SQUARE.rows, sizes.vision_hidden)
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.add_(attention.q_proj.weight).mul_(math.sqrt(0.5))
    model.generation_config.max_new_tokens = 64
    return model
