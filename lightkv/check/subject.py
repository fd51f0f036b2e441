"""What is checked: a model, rows to ask it, and how far rounding may carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightkv.answers import Generation
from lightkv.check.oracle import MaskedModel, Overwrite
from lightkv.contract.compressor import Compressor
from lightkv.running import full_cache
from lightkv.vlm import VLM

# Worst difference that float32 rounding explains, relative to the largest logit.
FLOAT32_LIMIT = 1e-5
# In other number formats the limit is measured: the same generation under the other attention
# kernel differs by rounding alone, and a check may differ by a few times that.
NOISE_FACTOR = 4.0


@dataclass
class Subject:
    """A model and the prompts of one check.

    Attributes:
        vlm: The model.
        rows: Processed prompts of one row each.
        batch: The same as one batch; the only row itself where there is one.
        tokens: Tokens to generate.
    """

    vlm: VLM
    rows: Sequence[Mapping[str, Tensor]]
    batch: Mapping[str, Tensor]
    tokens: int = 3
    _runs: dict[str, Generation] = field(default_factory=dict)

    @property
    def real(self) -> Tensor:
        """(B, N) bool: tokens of the batch that are not padding."""
        return self.batch["attention_mask"].bool()

    @cached_property
    def plain(self) -> Any:
        """The model's own generation for the batch."""
        return self.generate_plain(self.batch, forced=None)

    @cached_property
    def answer(self) -> Tensor:
        """(B, T) tokens that the plain model says.

        Every later generation is made to say the same, so that steps stay comparable where
        rounding would tip the choice of a token.
        """
        answer: Tensor = self.plain.sequences[:, -self.tokens :]
        return answer

    @cached_property
    def limit(self) -> float:
        """Largest difference, relative to the largest logit, that passes."""
        if self.vlm.dtype in (torch.float32, torch.float64):
            return FLOAT32_LIMIT
        return NOISE_FACTOR * self.kernel_noise()

    def kernel_noise(self) -> float:
        """Difference between the two attention kernels on the plain model."""
        # Both before the kernel changes: they are made when they are first asked for.
        plain, answer = logits(self.plain), self.answer
        model, kernel = self.vlm.model, self.vlm.attention
        model.set_attn_implementation("sdpa" if kernel == "eager" else "eager")
        try:
            other = self.generate_plain(self.batch, answer)
        finally:
            model.set_attn_implementation(kernel)
        return difference(logits(other), plain)

    def settings(self, forced: Tensor | None) -> dict[str, Any]:
        """Settings of a generation; ``forced`` (B, T) are the tokens it has to say."""
        settings: dict[str, Any] = {
            "max_new_tokens": self.tokens,
            "min_new_tokens": self.tokens,
            "do_sample": False,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        if forced is not None:
            settings["logits_processor"] = [_say(forced)]
        return settings

    def generate_plain(self, inputs: Mapping[str, Tensor], forced: Tensor | None) -> Any:
        """``model.generate`` without any intervention."""
        cache = {"past_key_values": full_cache()} if self.vlm.quirks.has_windows else {}
        with torch.no_grad():
            model_inputs = self.vlm.model_inputs(inputs)
            return self.vlm.model.generate(**model_inputs, **cache, **self.settings(forced))

    def generate(
        self, inputs: Mapping[str, Tensor], compressor: Compressor, forced: Tensor
    ) -> Generation:
        """Generation with a compressor."""
        return self.vlm.generate(inputs, compressor, **self.settings(forced))

    def compressed(self, compressor: Compressor) -> Generation:
        """Generation of the batch with a compressor; run once."""
        name = str(compressor)
        if name not in self._runs:
            self._runs[name] = self.generate(self.batch, compressor, self.answer)
        return self._runs[name]

    def masked(self, run: Generation, stage: int | None = None) -> Any:
        """The oracle of a compressed run: what it kept is all that may be seen."""
        real, padding = self.real, (~self.real).sum(1).tolist()
        visible = []
        for layer in range(self.vlm.facts.layers):
            seen = torch.zeros_like(real)
            for row, record in enumerate(run.records):
                seen[row, record.layers[layer].kept.to(real.device) + padding[row]] = True
            visible.append(seen)
        overwrite = None if stage is None else self._overwrite(run, stage, padding)
        cache = {"past_key_values": full_cache()} if self.vlm.quirks.has_windows else {}
        masked = MaskedModel(self.vlm.model, visible, real, overwrite)
        model_inputs = {**self.vlm.model_inputs(self.batch), **cache}
        return masked.generate(model_inputs, **self.settings(self.answer))

    def _overwrite(self, run: Generation, stage: int, padding: Sequence[int]) -> Overwrite:
        survivors = torch.zeros_like(self.real)
        weights = torch.zeros(*self.real.shape, self.real.shape[1], device=self.real.device)
        for row, record in enumerate(run.records):
            merge = record.layers[-1].provenance
            if merge is None:
                survivors[row] = self.real[row]
                slots = torch.arange(int(self.real[row].sum()), device=weights.device)
                weights[row, slots, slots + padding[row]] = 1
                continue
            survivors[row, merge.index[0].to(survivors.device) + padding[row]] = True
            weights[row, : merge.new_length, padding[row] :] = merge.matrix()[0].to(weights)
        return Overwrite(stage, weights, survivors)


def logits(output: Any) -> Tensor:
    """(B, T, V) logits of a generation, float32."""
    return torch.stack(output.logits, 1).float()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _say(forced: Tensor) -> Any:
    """A logits processor that makes row b say ``forced[b]``."""
    start: list[int] = []

    def choose(ids: Tensor, scores: Tensor) -> Tensor:
        if not start:
            start.append(ids.shape[1])
        step = ids.shape[1] - start[0]
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(1, forced[:, step : step + 1].to(ids.device), 0.0)

    return choose
