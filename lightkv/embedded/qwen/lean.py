"""A leaner forward pass over the parameters of the stock model, used only for training.

It computes what ``Qwen3VLForConditionalGeneration`` computes (a test compares the logits) with
three savings: what is seen is a shared prefix of many independent questions, only a subset of the
vision tokens may be used, and the last layer is evaluated on the text rows alone.

``B`` prompts, ``N`` vision tokens of a grid, ``K`` of them in use, ``P`` tokens before the text,
``T`` text tokens, width ``D``, vision width ``V``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightkv.embedded.canvas import PATCH, Canvas
from lightkv.embedded.lean import rotate, split_heads
from lightkv.embedded.qwen.architecture import FRAMES, MERGE, ROPE_BASE

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_EPSILON: Final = 1e-6
_ALIGNED: Final = 8
_SIZES: Final = 64
"""Versions of a compiled layer at most: one more for every relation between sizes that is new."""
Rotation = tuple[Tensor, Tensor]


class LeanModel(nn.Module):
    """Vision tower, mergers and decoder of ``model``, sharing its parameters."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        config: Any = model.config
        visual: Any = model.model.visual
        self.patch_embed, self.pos_embed = visual.patch_embed, visual.pos_embed
        self.blocks = visual.blocks
        self.merger, self.deep_mergers = visual.merger, visual.deepstack_merger_list
        self.decoder: Any = model.model.language_model
        self.vision_heads: int = config.vision_config.num_heads
        self.positions: int = visual.num_grid_per_side
        self.deepstack: tuple[int, ...] = tuple(config.vision_config.deepstack_visual_indexes)
        self.heads: int = config.text_config.num_attention_heads
        self.key_heads: int = config.text_config.num_key_value_heads
        self.head_size: int = config.text_config.head_dim
        sections = config.text_config.rope_parameters["mrope_section"]
        self._trained_layer, self._tower_block = self._layer, self._block
        self.register_buffer("axis", axis_of_frequency(sections), persistent=False)
        self.axis: Tensor

    def compile_layers(self) -> None:
        """Compile what the layers of the decoder (in training) and of the tower do, for all
        sizes."""
        torch._dynamo.config.recompile_limit = _SIZES
        self._trained_layer = torch.compile(self._layer, dynamic=True)
        self._tower_block = torch.compile(self._block, dynamic=True)

    @property
    def tower(self) -> nn.ModuleList:
        """What the first stage trains."""
        return nn.ModuleList([self.patch_embed, self.pos_embed, self.blocks])

    @property
    def projector(self) -> nn.ModuleList:
        """From the tower's features to what the decoder reads."""
        return nn.ModuleList([self.merger, self.deep_mergers])

    def vision(self, pixels: Tensor, canvas: Canvas) -> list[Tensor]:
        """Features of the deepstack layers and of the last layer.

        Args:
            pixels: Bytes ``(M, 2, H, W, 3)``, two frames to a grid.
            canvas: Its size in vision tokens, ``N`` in all.

        Returns:
            Each ``(M, N, 4, V)``, the four patches of every token.
        """
        x = F.linear(_patches(pixels, canvas), self.patch_embed.proj.weight.flatten(1))
        x = x + self.patch_embed.proj.bias + self._resampled(canvas)
        rotation = _tower_rotation(canvas, x.shape[-1] // self.vision_heads, x.device)
        features = []
        for index, block in enumerate(self.blocks):
            x = self._tower_block(block, x, rotation)
            if index in self.deepstack:
                features.append(x)
        shape = (len(x), canvas.patches, MERGE * MERGE, x.shape[-1])
        return [feature.view(shape) for feature in (*features, x)]

    def _resampled(self, canvas: Canvas) -> Tensor:
        """Learned positions at every patch ``(4 N, V)``, corners on corners, tokens together."""
        side = self.positions
        grid = self.pos_embed.weight.float().view(1, side, side, -1).permute(0, 3, 1, 2)
        size = (canvas.rows * MERGE, canvas.columns * MERGE)
        grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=True)
        return _by_token(grid[0].permute(1, 2, 0)).flatten(0, -2)

    def _block(self, block: Any, x: Tensor, rotation: Rotation) -> Tensor:
        h = block.norm1(x)
        # (M, 4 N, 3 V) to three of (M, heads, 4 N, d)
        parts = (split_heads(part, self.vision_heads) for part in block.attn.qkv(h).chunk(3, -1))
        q, k, v = parts
        mixed = _see(rotate(q, *rotation), rotate(k, *rotation), v)
        x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        h = block.mlp.linear_fc1(block.norm2(x))
        result: Tensor = x + block.mlp.linear_fc2(F.gelu(h, approximate="tanh"))
        return result

    def project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What deepstack adds to each of the first layers, and last what the decoder reads.

        Args:
            features: As `vision` gives them, or some of their tokens: each ``(..., 4, V)``.

        Returns:
            Each ``(..., D)``.
        """
        *deep, last = features
        added = [
            merger.linear_fc2(F.gelu(merger.linear_fc1(merger.norm(feature.flatten(-2)))))
            for merger, feature in zip(self.deep_mergers, deep, strict=True)
        ]
        h = self.merger.norm(last).flatten(-2)
        return [*added, self.merger.linear_fc2(F.gelu(self.merger.linear_fc1(h)))]

    def forward(
        self,
        before: Tensor,
        added: Sequence[Tensor],
        text: Tensor,
        mask: Tensor,
        position: Tensor,
    ) -> Tensor:
        """Logits of the text.

        Args:
            before: Embeddings of everything before the text ``(B, P, D)``.
            added: What deepstack adds to them after each of the first layers ``(B, P, D)``.
            text: Embeddings of the text ``(B, T, D)``.
            mask: Which tokens the rows that predict text see ``(B, 1, T + 1, P + T)``, boolean.
            position: Rotary positions ``(B, 3, P + T)``: time, height and width.

        Returns:
            ``(B, T, vocabulary)``; row ``t`` is the prediction of ``text[:, t]``.
        """
        start = before.shape[1]
        x = torch.cat([before, text], 1)
        rotation = self._rotation(position)
        mask = added_mask(mask, _kernel_dtype(x))
        run = self._trained_layer if torch.is_grad_enabled() else self._layer
        for index, layer in enumerate(self.decoder.layers[:-1]):
            x = run(layer, x, rotation, mask, start)
            if index < len(added):
                x = x + F.pad(added[index], (0, 0, 0, text.shape[1]))
        x = self._last_layer(self.decoder.layers[-1], x, rotation, mask, start)
        x = _norm(x, self.decoder.norm.weight)
        return F.linear(x[:, :-1], self.decoder.embed_tokens.weight)

    def _rotation(self, position: Tensor) -> Rotation:
        """Cosine and sine ``(B, P + T, 1, d)``: every frequency turns with one axis."""
        size = self.head_size
        even = torch.arange(0, size, 2, device=position.device)
        frequency = ROPE_BASE ** -(even / size)
        angle = position[:, self.axis].transpose(1, 2) * frequency
        angle = torch.cat([angle, angle], -1)[:, :, None]
        return angle.cos(), angle.sin()

    def _layer(self, layer: Any, x: Tensor, rotation: Rotation, mask: Tensor, start: int) -> Tensor:
        """One decoder layer: what stands before the text is causal, the text follows ``mask``."""
        q, k, v = self._qkv(layer, x, rotation)
        # q, k, v (B, heads, P + T, d); the two halves of the rows join as (B, P + T, heads, d)
        first, rest = torch.split(q, [start, q.shape[2] - start], 2)
        seen = attend(first, k[:, :, :start], v[:, :, :start], None)
        told = attend(rest, k, v, mask[:, :, 1:])
        return self._finish(layer, x, torch.cat([seen.transpose(1, 2), told.transpose(1, 2)], 1))

    def _last_layer(
        self, layer: Any, x: Tensor, rotation: Rotation, mask: Tensor, start: int
    ) -> Tensor:
        """The last layer on the rows that predict text, ``(B, T + 1, D)``."""
        q, k, v = self._qkv(layer, x, rotation)
        mixed = attend(q[:, :, start - 1 :], k, v, mask)
        return self._finish(layer, x[:, start - 1 :], mixed.transpose(1, 2))

    def _qkv(self, layer: Any, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, all ``(B, heads, P + T, d)``.

        Queries and keys are normalised and turned as one tensor: half the kernels.
        """
        attention = layer.self_attn
        h = _norm(x, layer.input_layernorm.weight)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([projection.weight for projection in projections])
        heads, key_heads = self.heads, self.key_heads
        # (B, P + T, (heads + 2 key heads) d) to (B, P + T, heads + 2 key heads, d)
        rows = F.linear(h, weight).view(*x.shape[:2], -1, self.head_size)
        turned, values = torch.split(rows, [heads + key_heads, key_heads], 2)
        scales = (
            attention.q_norm.weight.expand(heads, -1),
            attention.k_norm.weight.expand(key_heads, -1),
        )
        turned = rotate(_norm(turned, torch.cat(scales)), *rotation).to(values.dtype)
        queries, keys = torch.split(turned, [heads, key_heads], 2)
        group = heads // key_heads
        keys, values = (part.repeat_interleave(group, 2) for part in (keys, values))
        # (B, P + T, heads, d) each to (B, heads, P + T, d)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def _finish(self, layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
        """What follows the attention; ``mixed`` is ``(B, S, heads, d)``."""
        x = x + layer.self_attn.o_proj(mixed.flatten(2))
        h = _norm(x, layer.post_attention_layernorm.weight)
        weight = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
        gate, up = F.linear(h, weight).chunk(2, -1)
        result: Tensor = x + layer.mlp.down_proj(F.silu(gate) * up)
        return result


def axis_of_frequency(sections: Sequence[int]) -> Tensor:
    """Which axis (time, height, width) turns each frequency: they take turns, time the rest."""
    axis = torch.zeros(sum(sections), dtype=torch.long)
    for number in (1, 2):
        axis[number : 3 * sections[number] : 3] = number
    return axis


def added_mask(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores: 0 where ``sees`` is True, minus infinity elsewhere.

    Made once for all layers. Rows start at multiples of eight entries, since kernels that read a
    mask copy one with other strides at every call.
    """
    keys = sees.shape[-1]
    room = -(-keys // _ALIGNED) * _ALIGNED
    mask = torch.zeros((*sees.shape[:-1], room), dtype=dtype, device=sees.device)[..., :keys]
    return mask.masked_fill_(~sees, -torch.inf)


def _see(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of all patches to all, ``(B, heads, rows, d)``.

    On a CPU in float32: the fused kernel in bfloat16 is not there for all processors.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    return mixed.to(q.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention ``(B, heads, rows, d)`` with what ``mask`` adds to the scores; causal if None.

    In bfloat16 on a CPU it is written out: the backward pass of the fused kernel takes several
    times as long there.
    """
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    if mask is None:
        index = torch.arange(q.shape[2], device=q.device)
        mask = added_mask(index <= index[:, None], q.dtype)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT) + mask
    return torch.matmul(torch.softmax(scores.float(), -1).to(v.dtype), v)


def _kernel_dtype(x: Tensor) -> torch.dtype:
    """Of queries, keys and values."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root mean square norm in float32.

    The weight stands outside, because a sum over all rows is fast on a GPU for any width, and the
    weight's gradient inside the fused kernel is left to a few of its cores if rows are short.
    """
    return F.rms_norm(x.float(), (x.shape[-1],), None, _EPSILON) * weight


def _by_token(grid: Tensor) -> Tensor:
    """Patches ``(2 rows, 2 columns, ...)`` to ``(rows, columns, 2, 2, ...)``."""
    rows, columns = grid.shape[0] // MERGE, grid.shape[1] // MERGE
    return grid.view(rows, MERGE, columns, MERGE, *grid.shape[2:]).transpose(1, 2)


def _patches(pixels: Tensor, canvas: Canvas) -> Tensor:
    """Bytes ``(M, 2, H, W, 3)`` to patch vectors ``(M, 4 N, 3 * 2 * p * p)``."""
    size = PATCH // MERGE
    shape = (len(pixels), FRAMES, canvas.rows, MERGE, size, canvas.columns, MERGE, size, 3)
    values = pixels.float().mul(2 / 255).sub(1).reshape(shape)
    # to picture, row, column, row and column in the token, channel, frame, row and column
    values = values.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return values.reshape(len(pixels), canvas.patches * MERGE * MERGE, -1)


def _tower_rotation(canvas: Canvas, size: int, device: torch.device) -> Rotation:
    """Cosine and sine ``(4 N, d)``: half of the frequencies turn with the row, half with the
    column."""
    rows = torch.arange(canvas.rows * MERGE, device=device)
    columns = torch.arange(canvas.columns * MERGE, device=device)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    at = _by_token(grid).reshape(-1, 2, 1)
    frequency = ROPE_BASE ** -(torch.arange(0, size // 2, 2, device=device) / (size // 2))
    angle = (at * frequency).flatten(1).repeat(1, 2)
    return angle.cos(), angle.sin()
