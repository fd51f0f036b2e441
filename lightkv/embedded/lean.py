"""A leaner forward pass over the parameters of the stock model, used only for training.

It computes what ``LlavaForConditionalGeneration`` computes (a test compares the logits) with three
savings: the picture is a shared prefix of many independent questions, only a subset of the image
tokens may be used, and the last layer is evaluated on the text rows alone.

``B`` pictures, ``N`` image tokens, ``P = prefix + N``, ``T`` text tokens, width ``D``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightkv.embedded.batches import Batch, attention_inputs
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.student import Student

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


class LeanModel(Student):
    """Vision tower, projector and decoder of ``model``, sharing its parameters."""

    inner = ("layers.", "encoder.", "linear_1.", "linear_2.")

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model
        self.width = config.vision_config.hidden_size
        self.tower: Any = model.model.vision_tower
        self.projector: Any = model.model.multi_modal_projector
        self.decoder: Any = model.model.language_model
        self.vision_heads: int = config.vision_config.num_attention_heads
        self.heads: int = config.text_config.num_attention_heads
        self.epsilon: float = config.text_config.rms_norm_eps
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", self.decoder.rotary_emb.inv_freq.clone(), persistent=False
        )
        self.words = self.decoder.embed_tokens
        self._vision, self._read = self.vision, self.forward

    def compile_parts(self) -> None:
        self._vision = torch.compile(self.vision, dynamic=False)
        self._read = torch.compile(self.forward, dynamic=False)

    def vision_parts(self) -> list[nn.Module]:
        return [self.tower]

    def language_parts(self) -> list[nn.Module]:
        return [self.projector, self.decoder]

    def see(self, pixels: Tensor) -> Tensor:
        return self._vision(pixels)

    def answer(self, batch: Batch, kept: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features = self.see(batch.pixels)
        image = self.project(take_patches(features, kept))
        mask, position = attention_inputs(batch, kept, batch.prefix.shape[1])
        return self._read(batch.prefix, image, batch.text, mask, position), image

    def vision(self, pixels: Tensor) -> Tensor:
        """Bytes ``(B, 128, 128, 3)`` to patch features ``(B, 256, D_vision)``."""
        count, side = len(pixels), SQUARE.rows
        patches = pixels.float().mul(2 / 255).sub(1)
        patches = patches.reshape(count, side, PATCH, side, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        embeddings = self.tower.embeddings
        weight = embeddings.patch_embedding.weight
        x = F.linear(patches.reshape(count, SQUARE.patches, -1), weight.flatten(1))
        summary = embeddings.class_embedding.expand(count, 1, -1).to(x.dtype)
        x = torch.cat([summary, x], 1) + embeddings.position_embedding.weight
        x = self.tower.pre_layrnorm(x)
        for layer in self.tower.encoder.layers:
            attention = layer.self_attn
            h = layer.layer_norm1(x)
            q, k, v = (
                split_heads(project(h), self.vision_heads)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            mixed = F.scaled_dot_product_attention(q, k, v)
            x = x + attention.out_proj(mixed.transpose(1, 2).flatten(2))
            x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layer_norm2(x))))
        patches_only: Tensor = x[:, 1:]
        return patches_only

    def project(self, features: Tensor) -> Tensor:
        """Patch features to image tokens ``(B, N, D)``."""
        hidden = F.gelu(self.projector.linear_1(features))
        projected: Tensor = self.projector.linear_2(hidden)
        return projected

    def forward(
        self, prefix: Tensor, image: Tensor, text: Tensor, mask: Tensor, position: Tensor
    ) -> Tensor:
        """Logits of the text.

        Args:
            prefix: Token ids before the image ``(B, prefix)``.
            image: Image tokens ``(B, N, D)``.
            text: Token ids after the image ``(B, T)``.
            mask: Additive attention mask of the rows that predict text ``(B, 1, T + 1, P + T)``.
            position: Rotary positions ``(B, P + T)``.

        Returns:
            ``(B, T, vocabulary)``; row ``t`` is the prediction of ``text[:, t]``.
        """
        embed = self.decoder.embed_tokens
        x = torch.cat([embed(prefix), image, embed(text)], 1)
        start = prefix.shape[1] + image.shape[1]
        angle = position[..., None].float() * self.frequencies
        angle = torch.cat([angle, angle], -1)[:, None]
        rotation = (angle.cos(), angle.sin())
        for layer in self.decoder.layers[:-1]:
            x = self._layer(layer, x, rotation, mask, start)
        x = self._last_layer(self.decoder.layers[-1], x, rotation, mask, start)
        x = self._norm(x, self.decoder.norm.weight)
        return F.linear(x[:, :-1], embed.weight)

    def _layer(
        self, layer: Any, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, start: int
    ) -> Tensor:
        """One decoder layer: the picture part is causal, the text part follows ``mask``."""
        h = self._norm(x, layer.input_layernorm.weight)
        q, k, v = self._qkv(layer, h)
        q, k = rotate(q, *rotation), rotate(k, *rotation)
        seen = F.scaled_dot_product_attention(
            q[:, :, :start], k[:, :, :start], v[:, :, :start], is_causal=True
        )
        told = F.scaled_dot_product_attention(q[:, :, start:], k, v, attn_mask=mask[:, :, 1:])
        return self._finish(layer, x, torch.cat([seen, told], 2))

    def _last_layer(
        self, layer: Any, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, start: int
    ) -> Tensor:
        """The last layer on the rows that predict text, ``(B, T + 1, D)``."""
        h = self._norm(x, layer.input_layernorm.weight)
        q, k, v = self._qkv(layer, h)
        q = rotate(q, *rotation)[:, :, start - 1 :]
        mixed = F.scaled_dot_product_attention(q, rotate(k, *rotation), v, attn_mask=mask)
        return self._finish(layer, x[:, start - 1 :], mixed)

    def _qkv(self, layer: Any, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = layer.self_attn
        weight = torch.cat(
            [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        )
        q, k, v = F.linear(h, weight).chunk(3, -1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def _finish(self, layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
        h = self._norm(x, layer.post_attention_layernorm.weight)
        weight = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
        gate, up = F.linear(h, weight).chunk(2, -1)
        result: Tensor = x + layer.mlp.down_proj(F.silu(gate) * up)
        return result

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), weight, self.epsilon)


def take_patches(features: Tensor, kept: Tensor) -> Tensor:
    """Rows ``kept`` ``(B, N)`` of ``features`` ``(B, 256, D)``: ``(B, N, D)``."""
    return features.gather(1, kept[..., None].expand(-1, -1, features.shape[-1]))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, S, D)`` to ``(B, heads, S, D / heads)``."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, halves convention; ``x`` is ``(B, H, S, d)``."""
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
