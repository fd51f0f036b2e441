"""Gemma 3: a fixed number of pooled tokens per image, which see each other in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightkv.families.base import Family
from lightkv.families.llava import squares
from lightkv.families.supply import Supply


class Gemma3(Family):
    """Gemma 3: square grids; bidirectional image blocks; most layers have a sliding window."""

    model_types = ("gemma3",)
    # Without it image blocks are causal, without any error.
    required_inputs = ("token_type_ids",)

    def rotary_at(self, model: Any, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        # The angles of global layers grow more slowly than those of layers with a window.
        kind = model.config.get_text_config().layer_types[layer]
        like = model.get_input_embeddings().weight.new_zeros(1, 1, 1)
        cos, sin = model.get_decoder().rotary_emb(like, positions, kind)
        return cos, sin

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        side = math.isqrt(config.mm_tokens_per_image)
        return squares(side, side)
