"""What a CLIP vision tower knows of each patch: class-token attention, keys, features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import VisionFeatures


def has_class_token(config: Any) -> bool:
    """True if the model reads one layer of a CLIP tower, which has a class token."""
    return "clip" in config.vision_config.model_type and isinstance(
        config.vision_feature_layer, int
    )


def clip_features(
    model: Any,
    pixels: Tensor,
    layout: TokenLayout,
    names: frozenset[str],
    source: Tensor | None = None,
) -> VisionFeatures:
    """Features of a batch of pictures, laid out over the prompt.

    Args:
        model: A model whose tower has a class token (see :func:`has_class_token`).
        pixels: (tiles, 3, h, w), in the order of the batch.
        layout: Of the prompts.
        names: Fields of :class:`~lightkv.contract.view.VisionFeatures` to fill in.
        source: (vision tokens,) int64: the patch of each, counted over all tiles in raster order;
            -1 for a token that is no patch, whose features are zero. None: all patches in order.
    """
    tower, reading = model.model.vision_tower, model.config.vision_feature_layer
    with torch.no_grad():
        hidden = tower(pixels, output_hidden_states=True).hidden_states
    last = reading % len(hidden)
    layers = getattr(tower, "vision_model", tower).encoder.layers

    def place(values: Tensor) -> Tensor:
        flat = values.reshape(-1, *values.shape[2:]).float()
        if source is not None:
            chosen = source.to(flat.device)
            patch = (chosen >= 0).view(-1, *(1,) * (flat.dim() - 1))
            flat = torch.where(patch, flat[chosen.clamp_min(0)], 0)
        out = flat.new_zeros(*layout.vision.shape, *flat.shape[1:])
        out[layout.vision] = flat
        return out

    found: dict[str, Tensor] = {}
    if "tile" in names:
        found["tile"] = _tiles(layout, source, hidden[last].shape[1] - 1)
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


def _tiles(layout: TokenLayout, source: Tensor | None, patches: int) -> Tensor:
    """(B, N) int64: tile of each token's patch, -1 for tokens that are no patch.

    Args:
        layout: Of the prompts.
        source: As in :func:`clip_features`.
        patches: Per tile.
    """
    vision = layout.vision
    patch = torch.arange(int(vision.sum())) if source is None else source
    tile = torch.full(vision.shape, -1, device=vision.device)
    tile[vision] = torch.where(patch >= 0, patch // patches, -1).to(tile.device)
    return tile


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
