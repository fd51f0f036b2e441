"""Masked-equivalence oracle: the full-length model with plain torch hooks, and nothing else.

Evicting an entry equals hiding its key from every later query of that layer; shortening equals
hiding the dropped keys in all later layers and overwriting the representatives.  The masks start
from the model's own, never from the library's, so that a wrong window or position shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Overwrite:
    """What shortening after layer ``stage`` does, on the full length.

    Attributes:
        stage: 0-based layer.
        weights: (B, N, N) float; row k of a batch row makes the k-th surviving token.
        survivors: (B, N) bool, representatives.
    """

    stage: int
    weights: Tensor
    survivors: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Values (B, N, D) with the representatives overwritten by the merged values."""
        merged = self.weights.to(values) @ values
        out = values.clone()
        for row in range(values.shape[0]):
            where = self.survivors[row].to(values.device)
            out[row, where] = merged[row, : int(where.sum())]
        return out


@dataclass(frozen=True)
class MaskedModel:
    """Runs ``generate`` on the unshortened sequence with keys hidden.

    Attributes:
        model: The stock model.
        visible: Per layer (B, N) bool: prompt keys in the cache while decoding.
        overwrite: The shortening, None for eviction alone.
        real: (B, N) bool, tokens that are not padding.
    """

    model: Any
    visible: list[Tensor]
    real: Tensor
    overwrite: Overwrite | None = None

    def generate(self, inputs: Mapping[str, Any], **settings: Any) -> Any:
        """``model.generate`` with the hooks in place."""
        decoder = self.model.get_decoder()
        handles = [
            layer.register_forward_pre_hook(self._layer_hook(number), with_kwargs=True)
            for number, layer in enumerate(decoder.layers)
        ]
        handles.append(decoder.register_forward_pre_hook(self._decoder_hook, with_kwargs=True))
        try:
            with torch.no_grad():
                return self.model.generate(**inputs, **settings)
        finally:
            for handle in handles:
                handle.remove()

    def _decoder_hook(self, _: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Overwrite vision features that the decoder adds after layers after the stage."""
        features, where = kwargs.get("deepstack_visual_embeds"), kwargs.get("visual_pos_masks")
        if self.overwrite is None or features is None or where is None:
            return args, kwargs
        changed = list(features)
        for layer in range(self.overwrite.stage + 1, len(features)):
            full = features[layer].new_zeros(*where.shape, features[layer].shape[-1])
            full[where] = features[layer]
            changed[layer] = self.overwrite.apply(full)[where]
        return args, {**kwargs, "deepstack_visual_embeds": changed}

    def _layer_hook(self, number: int) -> Callable[..., Any]:
        length = self.real.shape[1]

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, mask = args[0], kwargs.get("attention_mask")
            if hidden.shape[1] == length:
                if self.overwrite is None:
                    return args, kwargs
                if number == self.overwrite.stage + 1:
                    hidden = self.overwrite.apply(hidden)
                causal = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
                after = number > self.overwrite.stage
                seen = self.overwrite.survivors if after else self.real
                allowed = _boolean(mask, causal[None, None]) & seen[:, None, None, :]
            else:
                cached = kwargs["past_key_values"].layers[number].keys.shape[2]
                prompt = self.visible[number]
                joined = torch.ones_like(prompt[:, :1]).expand(-1, cached + 1 - length)
                seen = torch.cat([prompt, joined], 1)[:, None, None, :]
                allowed = _boolean(mask, torch.ones_like(seen)) & seen
            kernel_mask = self._for_kernel(allowed, hidden.dtype)
            return (hidden, *args[1:]), {**kwargs, "attention_mask": kernel_mask}

        return before

    def _for_kernel(self, allowed: Tensor, dtype: torch.dtype) -> Tensor:
        if self.model.config._attn_implementation != "eager":
            return allowed
        zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return zeros.masked_fill(~allowed, torch.finfo(dtype).min)


def _boolean(mask: Tensor | None, otherwise: Tensor) -> Tensor:
    if mask is None:
        return otherwise
    return mask if mask.dtype == torch.bool else mask == 0
