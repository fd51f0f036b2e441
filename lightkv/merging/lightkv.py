"""LightKV: merge vision tokens in windows of their grid, weighted by prompt attention.

*Make Your LVLM KV Cache More Lightweight*, Chen, Guo, Zimmermann, TMLR 2026, arXiv 2605.00789.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.attention import Normalisation
from lightkv.contract.checks import check_ratios, check_stages, check_windows, require_vision
from lightkv.contract.compressor import Positions, Reducer
from lightkv.contract.groups import gather_groups
from lightkv.contract.host import on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.cost.presets import MergeSchedule
from lightkv.errors import InputError, InvalidValueError
from lightkv.merging.matching import Pairs, match, merge_counts, reduction
from lightkv.merging.partition import Partition, Windows, partition, square, square_side
from lightkv.merging.schedule import schedule_for
from lightkv.merging.weighting import (
    Guidance,
    Prompt,
    prompt_importance,
    prompt_tokens,
    random_importance,
    size_importance,
    uniform_importance,
)

#: Models whose released scripts set the schedule, by the family that the released code tells apart.
RELEASED_PRESETS = {"llava": "llava-1.5-7b", "qwen": "qwen2.5-vl-7b"}


class StageSkippedWarning(UserWarning):
    """A merging stage left a prompt alone because an image had too few tokens."""


@register("lightkv")
@dataclass(frozen=True)
class LightKV(Reducer):
    """Prompt-guided merging of vision tokens in three (or any number of) stages.

    After each stage layer the vision tokens are cut into w x w windows; in each window every
    other token proposes to merge into the most similar one of the rest, the nearest proposals
    are carried out, and each merged token is the mean of its group, weighted by the attention
    between its members and the prompt (Eq. 5 to 8). A merged token sits at its target's place.
    Ties: lowest index first. The defaults follow the paper, :meth:`released` the code.

    Attributes:
        layers: 0-based layers after which a stage acts (Λ).
        windows: Windows per side at each stage (W), never growing.
        ratios: Share of each window's tokens that merges away at each stage (P), at most 0.5.
        guidance: What weighs the mean: prompt attention, nothing, token sizes or chance.
        normalise: Softmax of the attention over the "keys" (Eq. 2) or the "queries" (released).
        masked: Apply the causal mask before that softmax.
        prompt: "text" (system and user text) or "question" (text after the first image).
        partition: Windows on the "true-grid" of every image; on the "square" that its tokens are
            re-read as; on "square-blocks", the released rule, which also deals the tokens of
            several images into equal blocks; or one "global" window.
        positions: Survivors "keep" their rotary position or are renumbered; the released code does
            so in the prefill only. See :data:`~lightkv.contract.compressor.Positions`.
        min_tokens: Tokens per window that every image of a prompt must have, else the stage is
            skipped for that prompt, with a :class:`StageSkippedWarning`. None never skips and
            refuses grids that are too small for their windows.
        counting: "exact" on the ratio as it was written, or "float32" as in the released code,
            where ratios above 0.5 act as 0.5.
        first_layer: Tokens of the first stage layer see earlier ones only ("causal"), or all
            ("two-way"): under SDPA the released code runs that layer without a mask.
        floor: Smallest denominator of Eq. 8; a group with less weight than that shrinks.
    """

    layers: tuple[int, ...]
    windows: tuple[int, ...]
    ratios: tuple[float, ...]
    guidance: Guidance = "prompt"
    normalise: Normalisation = "keys"
    masked: bool = False
    prompt: Prompt = "text"
    partition: Partition = "true-grid"
    positions: Positions = "keep"
    min_tokens: int | None = None
    counting: Literal["exact", "float32"] = "exact"
    first_layer: Literal["causal", "two-way"] = "causal"
    floor: float = 0.0

    @classmethod
    def of(cls, schedule: MergeSchedule, **options: object) -> LightKV:
        """The method on a schedule; options are further fields of the class."""
        base = cls(schedule.layers, schedule.windows, schedule.ratios)
        return dataclasses.replace(base, **options)  # type: ignore[arg-type]

    @classmethod
    def for_model(cls, model: str, schedule: str | None = None, **options: object) -> LightKV:
        """The method on a published schedule of a preset model, by default its first.

        Raises:
            UnknownNameError, InvalidValueError: If there is no such preset or schedule.
        """
        return cls.of(schedule_for(model, schedule), **options)

    @classmethod
    def released(
        cls,
        family: Literal["llava", "qwen"],
        layers: tuple[int, ...] | None = None,
        windows: tuple[int, ...] | None = None,
        ratios: tuple[float, ...] | None = None,
    ) -> LightKV:
        """What the released code computes, by default on the schedule of the family's script.

        Its LLaVA path weighs by random numbers, its Qwen path by prompt attention normalised over
        the queries. Both re-read the tokens as squares, renumber positions, and skip a stage
        unless every image has eight tokens per window.

        Raises:
            InvalidValueError: If ``family`` is neither "llava" nor "qwen".
        """
        if family not in RELEASED_PRESETS:
            raise InvalidValueError("family", family, ", ".join(RELEASED_PRESETS))
        script = schedule_for(RELEASED_PRESETS[family], "released")
        return cls(
            script.layers if layers is None else layers,
            script.windows if windows is None else windows,
            script.ratios if ratios is None else ratios,
            guidance="random" if family == "llava" else "prompt",
            normalise="queries",
            partition="square-blocks",
            positions="reindex-prefill",
            min_tokens=8,
            counting="float32",
            first_layer="two-way",
            floor=1e-8,
        )

    def position_rule(self) -> Positions:
        """As the field ``positions`` says."""
        return self.positions

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """The field ``layers``."""
        return self.layers

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """All stage layers under prompt guidance, else none."""
        return self.layers if self.guidance == "prompt" else ()

    def two_way_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """The first stage layer, if it is to be one."""
        return self.layers[:1] if self.first_layer == "two-way" else ()

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages that the model has no layers for, and parameters out of range."""
        check_stages(self.layers, facts)
        check_windows(self.windows, len(self.layers))
        if self.partition == "global" and self.windows[0] > 1:
            raise InvalidValueError("windows", self.windows, "1 at each stage, if global")
        check_ratios(self.ratios, len(self.layers), most=1 if self.counting == "float32" else 0.5)
        if self.min_tokens is not None and self.min_tokens < 0:
            raise InvalidValueError("min_tokens", self.min_tokens, "None or at least 0")
        if not self.floor >= 0:
            raise InvalidValueError("floor", self.floor, "at least 0")

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image or guidance, and grids too small for their windows."""
        require_vision(layout)
        if self.guidance == "prompt" and not prompt_tokens(layout, self.prompt).any(1).all():
            raise InputError("a prompt without text can't guide the merging")
        if self.partition == "square-blocks":
            partition(self.partition, layout, 1)
        if self.min_tokens is None and self.partition != "global":
            self._check_sides(layout)

    def reduce(self, view: LayerView) -> Reduction:
        """The reduction of the stage at ``view.layer``; a ratio of 0 changes nothing.

        Raises:
            InputError: If "square-blocks" can't deal a row's tokens evenly.
        """
        ratio = self.ratios[self.layers.index(view.layer)]
        if ratio == 0:
            return Reduction.identity(
                view.layout.batch_size, view.layout.length, view.layout.kind.device
            )
        importance = self.importance(view)
        merged = reduction(view.layout, self.pairs(view), importance)
        return merged if self.floor == 0 else _shrink(merged, importance, self.floor)

    def windows_of(self, view: LayerView) -> Windows:
        """The windows of the stage at ``view.layer``; rows that skip it have none."""
        per_side = self.windows[self.layers.index(view.layer)]
        cut = partition(self.partition, view.layout, per_side)
        gone = self.skipped(view)[:, None]
        return Windows(np.where(gone, -1, cut.block), np.where(gone, -1, cut.window))

    def skipped(self, view: LayerView) -> NDArray[np.bool_]:
        """(B,): rows that the stage at ``view.layer`` leaves alone."""
        per_side = self.windows[self.layers.index(view.layer)]
        if self.min_tokens is None:
            return np.zeros(view.layout.batch_size, np.bool_)
        return view.layout.once(_lacking, self.min_tokens * per_side**2)

    def pairs(self, view: LayerView) -> Pairs:
        """Who merges with whom at ``view.layer`` (Eq. 5, 6)."""
        skipped = self.skipped(view)
        if skipped.any():
            warnings.warn(
                f"{self.min_tokens} tokens per window are wanted of every image; the stage after "
                f"layer {view.layer} leaves rows {np.flatnonzero(skipped).tolist()} alone",
                StageSkippedWarning,
                stacklevel=3,
            )
        groups = gather_groups(self.windows_of(view).labels())
        ratio = self.ratios[self.layers.index(view.layer)]
        merges = merge_counts(groups, ratio, single=self.counting == "float32")
        return match(view.hidden, groups.to(view.hidden.device), merges)

    def importance(self, view: LayerView) -> Tensor:
        """(B, N) float: what each vision token counts for in its group's mean (Eq. 7)."""
        if self.guidance == "prompt":
            return prompt_importance(
                view, prompt=self.prompt, normalise=self.normalise, masked=self.masked
            )
        if self.guidance == "random":
            return random_importance(view, self.prompt)
        return size_importance(view) if self.guidance == "size" else uniform_importance(view)

    def _check_sides(self, layout: TokenLayout) -> None:
        # Every window leaves a token and windows never grow in number, so later stages fit too.
        if self.partition == "true-grid":
            side = min(min(g.rows, g.cols) for grids in layout.grids for g in grids)
        else:
            images = gather_groups(square(layout, 1).labels())
            side = int(square_side(on_host(images.valid).sum(1)).min())
        if self.windows[0] > side:
            allowed = f"at most {side} per side on the smallest grid of this prompt"
            raise InvalidValueError("windows", self.windows[0], allowed)


def _lacking(layout: TokenLayout, least: int) -> NDArray[np.bool_]:
    """(B,): rows with an image of fewer than ``least`` tokens."""
    image = layout.arrays["image"]
    numbers = np.arange(image.max(initial=0) + 1)
    counts = (image[..., None] == numbers).sum(1)  # (B, images)
    lacking = (counts < least) & (numbers <= image.max(1)[:, None])
    rows: NDArray[np.bool_] = lacking.any(1)
    return rows


def _shrink(merged: Reduction, importance: Tensor, floor: float) -> Reduction:
    """Divide by ``floor`` where the weights of a merged group sum to less."""
    total = importance.new_zeros(len(merged.slot), merged.new_length + 1)
    total.scatter_add_(1, merged.slot, importance)
    factor = torch.where(
        torch.nn.functional.pad(merged.sizes(), (0, 1)) > 1, (total / floor).clamp_max(1), 1
    )
    return dataclasses.replace(merged, weight=merged.weight * factor.gather(1, merged.slot))
