"""What a CLIP vision tower knows of each patch: class-token attention, keys, features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.layout import TokenLayout
from lightkv.view import VisionFeatures


def clip_features(
    tower: Any, pixels: Tensor, reading: int, layout: TokenLayout, names: frozenset[str]
) -> VisionFeatures:
    """Features of a batch of pictures, laid out over the prompt.

    Args:
        tower: A CLIP vision model with a class token.
        pixels: (images, 3, h, w), in the order of the batch.
        reading: Index into the tower's hidden states that the projector reads (-2 in LLaVA).
        layout: Of the prompts; every picture fills its vision tokens in raster order.
        names: Fields of :class:`~lightkv.view.VisionFeatures` to fill in.
    """
    with torch.no_grad():
        hidden = tower(pixels, output_hidden_states=True).hidden_states
    last = reading % len(hidden)
    layers = getattr(tower, "vision_model", tower).encoder.layers

    def place(values: Tensor) -> Tensor:
        flat = values.reshape(-1, *values.shape[2:]).float()
        out = flat.new_zeros(*layout.vision.shape, *flat.shape[1:])
        out[layout.vision] = flat
        return out

    found: dict[str, Tensor] = {}
    if "cls_attention" in names:
        found["cls_attention"] = place(_class_attention(layers[last - 1], hidden[last - 1]))
    if "first_attention" in names:
        found["first_attention"] = place(_class_attention(layers[0], hidden[0]))
    if "keys" in names:
        _, keys = _projections(layers[last - 1], hidden[last - 1])
        found["keys"] = place(keys.mean(1)[:, 1:])
    if "features" in names:
        found["features"] = place(hidden[last][:, 1:])
    return VisionFeatures(**found)


def _projections(layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (images, H, 1 + patches, d) of a tower layer."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    shape = (*hidden.shape[:2], attention.num_heads, attention.head_dim)
    with torch.no_grad():
        queries = attention.q_proj(normed).view(shape).transpose(1, 2)
        keys = attention.k_proj(normed).view(shape).transpose(1, 2)
    return queries, keys


def _class_attention(layer: Any, hidden: Tensor) -> Tensor:
    """(images, patches) attention of the class token, sum over heads."""
    queries, keys = _projections(layer, hidden)
    logits = queries[:, :, :1] @ keys.transpose(-1, -2) * layer.self_attn.scale
    return torch.softmax(logits.float(), -1)[:, :, 0, 1:].sum(1)
