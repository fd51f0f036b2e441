"""A leaner forward pass over the parameters of the stock Fuyu, used only for training.

It computes what ``FuyuForCausalLM`` computes (a test compares the logits) with three savings: the
picture is a shared prefix of many independent questions, only a subset of the vision tokens may be
used, and the last layer is evaluated on the text rows alone.

``B`` pictures, ``N`` vision tokens in use, ``P`` tokens before the text (vision tokens, line
breaks and the beginning of the prompt), ``T`` text tokens, width ``D``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightkv.embedded.batches import Batch, attention_mask
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.fuyu.vocabulary import LINE_ID
from lightkv.embedded.lean import rotate, take_patches
from lightkv.embedded.student import Student

if TYPE_CHECKING:
    from transformers import FuyuForCausalLM

Rotation = tuple[Tensor, Tensor]
_PICTURE: Final = SQUARE.patches + SQUARE.rows
"""Tokens of a picture: its patches, and a line break after each row."""


class LeanModel(Student):
    """The patch embedding and the decoder of ``model``, sharing its parameters.

    Args:
        model: The stock model.
        seeing: Layers after which a vision token should know what its patch shows.
    """

    inner = ("layers.",)

    def __init__(self, model: FuyuForCausalLM, seeing: int) -> None:
        super().__init__()
        config: Any = model.config
        inside: Any = model.model
        self.model = model
        self.seeing = seeing
        self.patch_embed: nn.Linear = inside.vision_embed_tokens
        self.decoder: Any = inside.language_model
        self.words = self.decoder.embed_tokens
        self.width = config.text_config.hidden_size
        self.heads: int = config.text_config.num_attention_heads
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", self.decoder.rotary_emb.inv_freq.clone(), persistent=False
        )
        self._trained_layer = self._layer

    def compile_parts(self) -> None:
        self._trained_layer = torch.compile(self._layer, dynamic=True)

    def vision_parts(self) -> list[nn.Module]:
        seeing = nn.ModuleDict({"layers": self.decoder.layers[: self.seeing]})
        return [self.patch_embed, seeing]

    def language_parts(self) -> list[nn.Module]:
        return [self.patch_embed, self.decoder]

    def see(self, pixels: Tensor) -> Tensor:
        every = torch.arange(SQUARE.patches, device=pixels.device).expand(len(pixels), -1)
        x, position, patches = self._picture(pixels, every)
        rotation = self._rotation(position)
        for layer in self.decoder.layers[: self.seeing]:
            x = self._trained_layer(layer, x, rotation, None, x.shape[1])
        return take_patches(x, patches)

    def answer(self, batch: Batch, kept: Tensor) -> tuple[Tensor, Tensor]:
        x, position, patches = self._picture(batch.pixels, kept)
        ahead = torch.arange(batch.prefix.shape[1], device=kept.device).expand(len(kept), -1)
        after = batch.position + ahead.shape[1]
        rotation = self._rotation(torch.cat([position, ahead + _PICTURE, after + _PICTURE], 1))
        x = torch.cat([x, self.words(batch.prefix), self.words(batch.text)], 1)
        start = x.shape[1] - batch.text.shape[1]
        mask = attention_mask(batch, start)
        seen = x
        for index, layer in enumerate(self.decoder.layers[:-1], 1):
            x = self._trained_layer(layer, x, rotation, mask, start)
            if index == self.seeing:
                seen = x
        x = self._last_layer(self.decoder.layers[-1], x, rotation, mask, start)
        x = self.decoder.final_layernorm(x)
        return F.linear(x[:, :-1], self.words.weight), take_patches(seen, patches)

    def _picture(self, pixels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A picture as the decoder reads it.

        Returns:
            Embeddings of the patches in use and of all line breaks ``(B, N + 16, D)``, their
            positions ``(B, N + 16)``, and where among them the patches stand ``(B, N)``.
        """
        patches = self.patch_embed(take_patches(patch_vectors(pixels), kept))
        breaks = self.words.weight[LINE_ID].expand(len(kept), SQUARE.rows, -1)
        row = torch.arange(1, SQUARE.rows + 1, device=kept.device)
        ends = row * (SQUARE.columns + 1) - 1
        position = torch.cat([kept + kept // SQUARE.columns, ends.expand(len(kept), -1)], 1)
        position, order = position.sort(1)
        rank = order.argsort(1)[:, : kept.shape[1]]
        return take_patches(torch.cat([patches, breaks], 1), order), position, rank

    def _rotation(self, position: Tensor) -> Rotation:
        """Cosine and sine ``(B, 1, P + T, d / 2)`` of the half of a head that turns."""
        angle = position[..., None].float() * self.frequencies
        angle = torch.cat([angle, angle], -1)[:, None]
        return angle.cos(), angle.sin()

    def _layer(
        self, layer: Any, x: Tensor, rotation: Rotation, mask: Tensor | None, start: int
    ) -> Tensor:
        """One decoder layer: what stands before the text is causal, the text follows ``mask``."""
        q, k, v = self._qkv(layer, x, rotation)
        mixed = F.scaled_dot_product_attention(
            q[:, :, :start], k[:, :, :start], v[:, :, :start], is_causal=True
        )
        if mask is not None:
            told = F.scaled_dot_product_attention(q[:, :, start:], k, v, attn_mask=mask[:, :, 1:])
            mixed = torch.cat([mixed, told], 2)
        return self._finish(layer, x, mixed)

    def _last_layer(
        self, layer: Any, x: Tensor, rotation: Rotation, mask: Tensor, start: int
    ) -> Tensor:
        """The last layer on the rows that predict text, ``(B, T + 1, D)``."""
        q, k, v = self._qkv(layer, x, rotation)
        mixed = F.scaled_dot_product_attention(q[:, :, start - 1 :], k, v, attn_mask=mask)
        return self._finish(layer, x[:, start - 1 :], mixed)

    def _qkv(self, layer: Any, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(B, heads, P + T, d)``."""
        attention = layer.self_attn
        fused = attention.query_key_value(layer.input_layernorm(x))
        # (B, P + T, 3 D) to three of (B, heads, P + T, d): a head's parts lie together
        parts = fused.view(*x.shape[:2], self.heads, 3, -1).transpose(1, 2).unbind(3)
        q, k = attention.q_layernorm(parts[0]), attention.k_layernorm(parts[1])
        return _turn(q, rotation), _turn(k, rotation), parts[2]

    def _finish(self, layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + layer.self_attn.dense(mixed.transpose(1, 2).flatten(2))
        h = layer.mlp.dense_h_to_4h(layer.post_attention_layernorm(x))
        result: Tensor = x + layer.mlp.dense_4h_to_h(F.relu(h).square())
        return result


def _turn(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding of the first half of each head."""
    turned, rest = x.chunk(2, -1)
    return torch.cat([rotate(turned, *rotation), rest], -1)


def patch_vectors(pixels: Tensor) -> Tensor:
    """Bytes ``(B, 128, 128, 3)`` to normalised patches ``(B, 256, 8 * 8 * 3)``."""
    count, side = len(pixels), SQUARE.rows
    values = pixels.float().mul(2 / 255).sub(1).reshape(count, side, PATCH, side, PATCH, 3)
    # picture, row, column, then row and column in the patch, channel
    return values.permute(0, 1, 3, 2, 4, 5).reshape(count, SQUARE.patches, -1)
