"""Masked-equivalence oracle: the full-length model with plain torch hooks, and nothing of lightkv.

Evicting an entry equals hiding its key from every later query of that layer; shortening equals
hiding the dropped keys in all later layers and overwriting the representatives.  The masks start
from the model's own, never from the library's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class MaskedRun:
    """Run ``generate`` on the unshortened sequence with keys hidden.

    Args:
        model: The stock model.
        layers: Its decoder layers.
        visible: per layer (B, N) bool: prompt keys in the cache while decoding.
        prefill_visible: per layer (B, N) bool: prompt keys the layer's own prefill may see.
        overwrite: layer -> (B, K, N) weights and (B, N) bool rows that take the merged values.
    """

    def __init__(
        self,
        model: Any,
        layers: Any,
        visible: list[Tensor],
        prefill_visible: list[Tensor] | None = None,
        overwrite: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.visible = visible
        self.prefill_visible = prefill_visible
        self.overwrite = overwrite or {}
        self.length = visible[0].shape[1]

    def generate(self, inputs: dict[str, Tensor], **settings: Any) -> Any:
        handles = [
            layer.register_forward_pre_hook(self._hook(number), with_kwargs=True)
            for number, layer in enumerate(self.layers)
        ]
        try:
            with torch.no_grad():
                return self.model.generate(**inputs, **settings)
        finally:
            for handle in handles:
                handle.remove()

    def cached(self, number: int, generated: int) -> Tensor:
        """(B, N + generated) entries that a layer attends at a decode step."""
        prompt = self.visible[number]
        return torch.cat([prompt, torch.ones(prompt.shape[0], generated, dtype=torch.bool)], 1)

    def _hook(self, number: int) -> Any:
        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, mask = args[0], kwargs.get("attention_mask")
            if hidden.shape[1] == self.length:
                hidden = self._overwritten(number, hidden)
                if self.prefill_visible is None:
                    return (hidden, *args[1:]), kwargs
                causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
                mask_of_model = self._boolean(mask, causal[None, None])
                allowed = mask_of_model & self.prefill_visible[number][:, None, None, :]
            else:
                keys = kwargs["past_key_values"].layers[number].keys.shape[2] + 1
                every = torch.ones(hidden.shape[0], 1, 1, keys, dtype=torch.bool)
                mask_of_model = self._boolean(mask, every)
                allowed = mask_of_model & self.cached(number, keys - self.length)[:, None, None, :]
            return (hidden, *args[1:]), {**kwargs, "attention_mask": self._as_kernel(allowed)}

        return before

    def _overwritten(self, number: int, hidden: Tensor) -> Tensor:
        if number not in self.overwrite:
            return hidden
        weights, rows = self.overwrite[number]
        merged = weights.to(hidden.dtype) @ hidden
        out = hidden.clone()
        for row in range(hidden.shape[0]):
            out[row, rows[row]] = merged[row, : int(rows[row].sum())]
        return out

    @staticmethod
    def _boolean(mask: Tensor | None, otherwise: Tensor) -> Tensor:
        if mask is None:
            return otherwise
        return mask if mask.dtype == torch.bool else mask == 0

    def _as_kernel(self, allowed: Tensor) -> Tensor:
        if self.model.config._attn_implementation != "eager":
            return allowed
        dtype = next(self.model.parameters()).dtype
        return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
