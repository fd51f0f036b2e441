"""Tiny models with random weights, and prompts for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lightkv.embedded.qwen.architecture import build_model
from lightkv.embedded.qwen.processing import build_processor
from lightkv.embedded.qwen.recipe import QUICK
from lightkv.families import family_of
from lightkv.vlm import VLM

IMAGE_TOKEN = 150
VOCABULARY = 160
SIDE = 4


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that logits tell inputs apart."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter.shape[-1] if parameter.dim() == 2 else parameter[0].numel()
            scale = 1.0 if "embed_tokens" in name else 1.6 / math.sqrt(fan_in)
            parameter.data.normal_(0, scale, generator=generator)
        elif "norm" not in name:
            parameter.data.normal_(0, 0.1, generator=generator)


def tiny_llava(attention: str = "sdpa", *, layers: int = 5, seed: int = 0) -> VLM:
    """LLaVA with a 4 x 4 grid, five layers, four heads in two groups."""
    text = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=8 * SIDE,
        patch_size=8,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_TOKEN,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    config._attn_implementation = attention
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()
    randomize(model, seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return VLM("tiny-llava", model, None, family_of("llava"))


def prompt(images: int, question: int, *, system: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """One row: system text, images, question; random ids and pixels."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> Tensor:
        return torch.randint(3, 140, (count,), generator=generator)

    picture = torch.full((SIDE * SIDE,), IMAGE_TOKEN)
    parts = [words(system)]
    for _ in range(images):
        parts += [picture, words(2)]
    ids = torch.cat([*parts, words(question)])[None]
    pixels = torch.randn(images, 3, 8 * SIDE, 8 * SIDE, generator=generator)
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**row, "pixel_values": pixels} if images else row


def stack(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Left-pad rows to a batch."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    padded = {
        key: torch.cat(
            [
                torch.nn.functional.pad(row[key], (longest - row[key].shape[1], 0), value=0)
                for row in rows
            ]
        )
        for key in ("input_ids", "attention_mask")
    }
    pixels = [row["pixel_values"] for row in rows if "pixel_values" in row]
    return {**padded, "pixel_values": torch.cat(pixels)} if pixels else padded


def tiny_qwen() -> VLM:
    """Qwen3-VL with random weights in three layers, with the embedded one's processor."""
    model = build_model(QUICK.architecture, 0).eval()
    randomize(model)
    processor = build_processor()
    processor.tokenizer.padding_side = "left"
    return VLM("tiny-qwen", model, processor, family_of("qwen3_vl"))
