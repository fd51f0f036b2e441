"""One decoder layer of a real model's dimensions with random weights, and views of it.

What a method is shown is what the layer itself computes from random hidden states: its output,
its rotated queries and keys, its values. What a vision tower would know is drawn at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.serving import drawn_features
from lightkv.contract.view import LayerView, ModelFacts, PromptInputs
from lightkv.cost.presets import preset
from lightkv.cost.presets.shape import TextShape
from lightkv.engine.hooks import peek
from lightkv.errors import InvalidValueError
from lightkv.loading import device_named, dtype_named

_VISION_WIDTH = 1024  # of CLIP ViT-L, LLaVA's tower


@dataclass(frozen=True)
class BenchSettings:
    """What is measured, and how often.

    Attributes:
        shape: Preset that the layer's dimensions are of.
        tokens: Vision tokens of a prompt, a square number.
        text: Text tokens after them.
        batch_size: Prompts at once.
        device: Where.
        dtype: "float32", "bfloat16" or "float16"; by default float32 on the CPU, else bfloat16.
        retention: Share of the cache for evictors that name none.
        repeats: Rounds that are counted.
        seed: Of weights, hidden states and methods that draw at random.

    Raises:
        InvalidValueError: A value is out of range, or the device is not there.
        UnknownNameError: There is no such preset.
    """

    shape: str = "llava-1.5-7b"
    tokens: int = 2304
    text: int = 64
    batch_size: int = 1
    device: str = "cpu"
    dtype: str | None = None
    retention: float = 0.2
    repeats: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "text", "batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise InvalidValueError(name, getattr(self, name), "at least 1")
        if self.side**2 != self.tokens:
            raise InvalidValueError("tokens", self.tokens, "a square number, such as 2304")
        if not 0 < self.retention <= 1:
            raise InvalidValueError("retention", self.retention, "above 0, at most 1")
        dtype_named(self.dtype, device_named(self.device))
        preset(self.shape)

    @property
    def side(self) -> int:
        """Cells per side of the image's grid."""
        return math.isqrt(self.tokens)

    @property
    def dimensions(self) -> TextShape:
        """The decoder's dimensions."""
        return preset(self.shape).shape.text

    @property
    def facts(self) -> ModelFacts:
        """What methods know about the model."""
        text = self.dimensions
        return ModelFacts(text.layers, text.heads, text.kv_heads, text.hidden)

    def layout(self) -> TokenLayout:
        """Layout of the prompts: an image, then text."""
        kinds = [TokenKind.VISION] * self.tokens + [TokenKind.TEXT] * self.text
        row = single_layout(kinds, [Grid(1, self.side, self.side)])
        return TokenLayout.stack([row] * self.batch_size)


class BenchLayer:
    """A stock Llama layer under SDPA with a prompt's hidden states.

    Args:
        settings: Its dimensions, the prompt's, device and dtype.
    """

    def __init__(self, settings: BenchSettings) -> None:
        from transformers.models.llama.modeling_llama import (
            LlamaDecoderLayer,
            LlamaRMSNorm,
            LlamaRotaryEmbedding,
            apply_rotary_pos_emb,
        )

        self.settings, self.facts = settings, settings.facts
        self.device = device_named(settings.device)
        self.dtype = dtype_named(settings.dtype, self.device)
        self.layout = settings.layout().to(self.device)
        self._config = _config(settings)
        torch.manual_seed(settings.seed)
        self._layer = LlamaDecoderLayer(self._config, 0).eval().to(self.device, self.dtype)
        shape = (*self.layout.kind.shape, settings.dimensions.hidden)
        self.hidden = torch.randn(shape, dtype=self.dtype, device=self.device)
        self.position_ids = self.layout.position
        rotary = LlamaRotaryEmbedding(self._config).to(self.device)
        self.rotary: tuple[Tensor, Tensor] = rotary(self.hidden, self.position_ids)
        cache = self._cache()
        self._output = self.forward(cache)
        self.keys, self.values = cache.layers[0].keys, cache.layers[0].values
        attention = self._layer.self_attn
        projected = attention.q_proj(self._layer.input_layernorm(self.hidden))
        heads = projected.view(*shape[:2], -1, settings.dimensions.head_dim).transpose(1, 2)
        self._queries, _ = apply_rotary_pos_emb(heads, heads, *self.rotary)
        self._scaling = float(attention.scaling)
        self._norm = LlamaRMSNorm(settings.dimensions.hidden).to(self.device, self.dtype)
        self._vision = drawn_features(
            self.layout, _VISION_WIDTH, settings.dimensions.hidden, settings.seed
        )

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._config)

    def forward(self, cache: Any = None) -> Tensor:
        """One prefill of the layer: its output (B, N, D); keys and values go into the cache."""
        output: Tensor = self._layer(
            self.hidden,
            position_ids=self.position_ids,
            position_embeddings=self.rotary,
            past_key_values=self._cache() if cache is None else cache,
            use_cache=True,
        )
        return output

    def _attention(self, ahead: bool) -> ProjectedAttention:
        if not ahead:
            return ProjectedAttention(self._queries, self.keys, self._scaling)
        settings = {"position_ids": self.position_ids, "position_embeddings": self.rotary}
        return peek(self._layer, (self._output,), settings)

    def view(self, layer: int, *, ahead: bool = False) -> LayerView:
        """The layer as a method sees it, as if it were number ``layer`` of the model.

        Args:
            layer: 0-based, -1 for what enters the first.
            ahead: The attention is that of the next layer, computed from what enters it.
        """
        inside = layer >= 0
        return LayerView(
            layer=layer,
            layers=self.facts.layers,
            hidden=self._output if inside else self.hidden,
            layout=self.layout,
            sizes=self.layout.real.long(),
            # Made each time, so that nothing of it is shared between methods or rounds.
            attention=self._attention(ahead) if inside else None,
            keys=self.keys if inside else None,
            values=self.values if inside else None,
            seed=self.settings.seed,
            vision=self._vision,
            inputs=PromptInputs(self.hidden, self.layout),
            rotary=self.rotary if inside else None,
            final_norm=self._norm,
        )


def _config(settings: BenchSettings) -> Any:
    from transformers import LlamaConfig

    fields: dict[str, Any] = settings.dimensions.config_fields(1)
    config = LlamaConfig(**fields, max_position_embeddings=settings.tokens + settings.text)
    config._attn_implementation = "sdpa"
    return config
