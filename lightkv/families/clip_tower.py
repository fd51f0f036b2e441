"""What a CLIP vision tower knows of each patch: attention, keys, features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import QuestionWords, VisionFeatures
from lightkv.families.text_tower import text_tower


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
    words: QuestionWords | None = None,
) -> VisionFeatures:
    """Features of a batch of pictures, laid out over the prompt.

    Args:
        model: A model whose tower has a class token (see :func:`has_class_token`).
        pixels: (tiles, 3, h, w), in the order of the batch.
        layout: Of the prompts.
        names: Fields of :class:`~lightkv.contract.view.VisionFeatures` to fill in.
        source: (vision tokens,) int64: the patch of each, counted over all tiles in raster order;
            -1 for a token that is not a patch, whose features are zero. None: all patches in order.
        words: Of the question, for ``text_relevance``.

    Raises:
        ModelError: If the text tower can't be loaded.
        UnsupportedError: If it belongs to another vision tower.
    """
    read = Pass.of(model, pixels)

    def place(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1).float()  # (tiles * patches, ...)
        if source is not None:
            patches = source.to(flat.device)
            is_patch = (patches >= 0).view(-1, *(1,) * (flat.dim() - 1))
            flat = torch.where(is_patch, flat[patches.clamp_min(0)], 0)
        out = flat.new_zeros(*layout.vision.shape, *flat.shape[1:])
        out[layout.vision] = flat
        return out

    with torch.no_grad():
        fields = {name: place(make(read)) for name, make in _FIELDS.items() if name in names}
    if "text_relevance" in names and words is not None:
        tower = text_tower(words.text_tower, read.features.device)
        per_text = place(tower.relevance(read.features, words.texts))  # (B, N, B)
        fields["text_relevance"] = per_text.diagonal(dim1=0, dim2=2).T
    if "tile" in names:
        fields["tile"] = _tiles(layout, source, read.features.shape[1])
    return VisionFeatures(**fields, project=_projector(model))


@dataclass(frozen=True)
class Pass:
    """One pass of a CLIP tower over tiles, each with a class token and P patches.

    Attributes:
        layers: The tower's layers.
        hidden: (tiles, 1 + P, C) input of the first layer, then output of each.
        reading: Index into ``hidden`` of what the projector reads.
    """

    layers: Sequence[Any]
    hidden: Sequence[Tensor]
    reading: int

    @classmethod
    def of(cls, model: Any, pixels: Tensor) -> Pass:
        """Run a model's tower over (tiles, 3, h, w) pixels."""
        tower = model.model.vision_tower
        with torch.no_grad():
            hidden = tower(pixels, output_hidden_states=True).hidden_states
        layers = getattr(tower, "vision_model", tower).encoder.layers
        return cls(layers, hidden, model.config.vision_feature_layer % len(hidden))

    @property
    def features(self) -> Tensor:
        """(tiles, P, C) what the projector reads."""
        return self.hidden[self.reading][:, 1:]

    def projections(self, layer: int) -> tuple[Tensor, Tensor]:
        """Queries and keys (tiles, 1 + P, C) of a layer, all heads side by side."""
        attention = self.layers[layer].self_attn
        normed = self.layers[layer].layer_norm1(self.hidden[layer])
        return attention.q_proj(normed), attention.k_proj(normed)

    def heads(self, layer: int) -> tuple[Tensor, Tensor]:
        """Queries and keys (tiles, H, 1 + P, d) of a layer."""
        width = self.layers[layer].self_attn.head_dim
        queries, keys = self.projections(layer)
        shape = (*keys.shape[:2], -1, width)  # of (tiles, 1 + P, H, d)
        return queries.view(shape).transpose(1, 2), keys.view(shape).transpose(1, 2)

    def class_attention(self, layer: int) -> Tensor:
        """(tiles, P) attention of the class token to each patch, sum over heads."""
        queries, keys = self.heads(layer)
        logits = queries[:, :, :1] @ keys.transpose(-1, -2) * self.layers[layer].self_attn.scale
        return torch.softmax(logits.float(), -1)[:, :, 0, 1:].sum(1)

    def received(self) -> Tensor:
        """(tiles, P, T) attention that each patch receives in the T layers up to the one read.

        Mean over heads and over all queries, the class token among them.
        """
        collected = []
        for layer in range(self.reading):
            queries, keys = self.heads(layer)
            logits = queries @ keys.transpose(-1, -2) * self.layers[layer].self_attn.scale
            collected.append(torch.softmax(logits.float(), -1).mean((1, 2))[:, 1:])
        return torch.stack(collected, -1)

    def last_attention(self) -> Tensor:
        """(tiles, P) attention of the class token in the last layer, all heads as one."""
        queries, keys = self.projections(len(self.layers) - 1)
        logits = (queries[:, :1] @ keys.transpose(-1, -2))[:, 0] / keys.shape[-1] ** 0.5
        return torch.softmax(logits.float(), -1)[:, 1:]


_FIELDS: Final[Mapping[str, Callable[[Pass], Tensor]]] = {
    "cls_attention": lambda read: read.class_attention(read.reading - 1),
    "first_attention": lambda read: read.class_attention(0),
    "keys": lambda read: read.heads(read.reading - 1)[1].mean(1)[:, 1:],
    "features": lambda read: read.features,
    "received": Pass.received,
    "last_attention": Pass.last_attention,
    "last_keys": lambda read: read.projections(len(read.layers) - 1)[1][:, 1:],
}


def _projector(model: Any) -> Callable[[Tensor], Tensor]:
    """What turns tower states (..., C) into embeddings (..., D) of the decoder."""

    def project(states: Tensor) -> Tensor:
        projector = model.model.multi_modal_projector
        weight = next(projector.parameters())
        with torch.no_grad():
            embeddings: Tensor = projector(states.to(weight.device, weight.dtype))
        return embeddings

    return project


def _tiles(layout: TokenLayout, source: Tensor | None, patches: int) -> Tensor:
    """(B, N) int64: tile of each token's patch, -1 for tokens that are not a patch.

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
