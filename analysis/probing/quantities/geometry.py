"""How alike states are: neighbours, windows, rank, and what merging them would lose."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.probing.quantities.base import (
    Heads,
    LayerQuantity,
    Need,
    Reading,
    kind_mask,
    nan_outside,
    register,
)
from lightkv.contract.host import on_device
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.errors import UnsupportedError
from lightkv.merging import LightKV
from lightkv.merging.partition import partition

States = Literal["hidden", "keys", "values"]


def states_of(reading: Reading, which: States) -> Tensor:
    """(B, N, D) float32 states of a layer; KV heads side by side.

    Raises:
        UnsupportedError: The layer has no cache entries.
    """
    if which == "hidden":
        return reading.view.hidden.float()
    cache = reading.view.keys if which == "keys" else reading.view.values
    if cache is None:
        raise UnsupportedError(f"layer {reading.view.layer} has no cache entries to read")
    return cache.transpose(1, 2).flatten(2).float()


@register
@dataclass(frozen=True)
class LocalSimilarity(LayerQuantity):
    """Mean cosine similarity of each token with its nearest neighbours (TGV-KV, Fig. 1 a).

    Neighbours are the tokens of the same kind at most k steps away along the sequence, on both
    sides; pairs across a border between image and text do not count.

    Attributes:
        distances: Values of k.
        of: States to compare.
    """

    distances: tuple[int, ...] = (1, 5, 20)
    of: States = "hidden"
    name: ClassVar[str] = "local_similarity"
    definition: ClassVar[str] = (
        "mean over tokens j of the same kind with 0 < |i - j| <= k of cos(x[i], x[j])"
    )

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("k", "key")

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"k": list(self.distances)}

    def measure(self, reading: Reading) -> Tensor:
        unit = F.normalize(states_of(reading, self.of), dim=-1)
        layout = reading.layout
        total = torch.zeros(layout.batch_size, layout.length, device=unit.device)
        count = torch.zeros_like(total)
        means: dict[int, Tensor] = {}
        for step in range(1, min(max(self.distances), layout.length - 1) + 1):
            same = layout.real[:, step:] & (layout.kind[:, step:] == layout.kind[:, :-step])
            cosine = (unit[:, step:] * unit[:, :-step]).sum(-1) * same
            total[:, step:] += cosine
            total[:, :-step] += cosine
            count[:, step:] += same
            count[:, :-step] += same
            if step in self.distances:
                means[step] = nan_outside(total / count, count > 0)
        # A distance beyond the prompt reaches every token there is.
        everything = nan_outside(total / count, count > 0)
        return torch.stack([means.get(k, everything) for k in self.distances], 1)


@register
@dataclass(frozen=True)
class FeatureDivergence(LayerQuantity):
    """Distribution of LightKV's feature divergence (Eq. 5) between vision tokens.

    Attributes:
        windows: Windows per side of the image grid; 1 compares all tokens of an image.
        quantiles: Which quantiles of the pairs are kept.
    """

    windows: tuple[int, ...] = (1, 2, 4)
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    name: ClassVar[str] = "feature_divergence"
    definition: ClassVar[str] = (
        "quantiles of FD(a, b) = 1 - cos(x[a], x[b]) over pairs of vision tokens in one window"
    )

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("windows", "quantile")

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"windows": list(self.windows), "quantile": list(self.quantiles)}

    def measure(self, reading: Reading) -> Tensor:
        layout = reading.layout
        unit = F.normalize(reading.view.hidden.float(), dim=-1)
        divergence = torch.full(
            (layout.batch_size, len(self.windows), len(self.quantiles)), torch.nan
        )
        for place, per_side in enumerate(self.windows):
            for row, labels in enumerate(window_labels(layout, per_side)):
                pairs = _pairs(unit[row], labels)
                if pairs.size:
                    levels = np.quantile(pairs, self.quantiles)
                    divergence[row, place] = torch.from_numpy(levels.astype(np.float32))
        return divergence


def window_labels(layout: TokenLayout, per_side: int) -> Tensor:
    """(B, N) int64: window of each vision token on its grid, -1 outside every window."""
    return on_device(partition("true-grid", layout, per_side).labels(), layout.kind.device)


def _pairs(unit: Tensor, labels: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """1 - cosine of all pairs (a < b) of equal label, of unit vectors (N, D)."""
    divergences = []
    for label in torch.unique(labels[labels >= 0]):
        window = unit[labels == label]
        above = torch.ones(len(window), len(window), dtype=torch.bool, device=unit.device)
        divergences.append((1 - window @ window.T)[above.triu(1)])
    joined = torch.cat(divergences) if divergences else torch.empty(0)
    return joined.cpu().numpy()


@register
@dataclass(frozen=True)
class EffectiveRank(LayerQuantity):
    """How many directions the states of a kind really use (Roy and Vetterli, 2007).

    Attributes:
        of: States to look at.
        centred: Take the mean away first; a common offset would otherwise hide the rest.
    """

    of: States = "hidden"
    centred: bool = True
    name: ClassVar[str] = "effective_rank"
    definition: ClassVar[str] = (
        "exp(-sum p log p) with p the singular values of the kind's centred states, normalised"
    )

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("kind",)

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"kind": ["vision", "text"]}

    def measure(self, reading: Reading) -> Tensor:
        states = states_of(reading, self.of)
        ranks = torch.full((len(states), 2), torch.nan)
        for place, kind in enumerate(("vision", "text")):
            for row, mask in enumerate(kind_mask(reading.layout, kind)):
                if int(mask.sum()) > 1:
                    ranks[row, place] = effective_rank(states[row, mask], centred=self.centred)
        return ranks


def effective_rank(states: Tensor, *, centred: bool = True) -> float:
    """Effective rank of a matrix of states (N, D), between 1 and min(N, D)."""
    matrix = states - states.mean(0) if centred else states
    values = torch.linalg.svdvals(matrix.double())
    total = values.sum()
    if not total > 0:
        return 1.0
    return float(torch.special.entr(values / total).sum().exp())


@dataclass(frozen=True)
class MergeQuantity(LayerQuantity):
    """What one merging stage of LightKV after this layer would do; nothing is merged.

    Attributes:
        windows: Windows per side of the image grid.
        ratio: Share of each window's tokens that merges away.
    """

    windows: tuple[int, ...] = (1, 2, 4)
    ratio: float = 0.5
    needs: ClassVar[Need] = "attention"

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("windows",)

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"windows": list(self.windows)}

    def measure(self, reading: Reading) -> Tensor:
        judged = []
        for per_side in self.windows:
            method = LightKV((reading.view.layer,), (per_side,), (self.ratio,))
            method.check_layout(reading.layout)
            judged.append(self.judge(reading, method.reduce(reading.view)))
        return torch.stack(judged, 1)

    @abstractmethod
    def judge(self, reading: Reading, reduction: Reduction) -> Tensor:
        """(B,) what the reduction loses or keeps."""


@register
@dataclass(frozen=True)
class MergeError(MergeQuantity):
    """Reconstruction error of merging: how much of the vision states one stage takes away."""

    name: ClassVar[str] = "merge_error"
    definition: ClassVar[str] = (
        "sum |x - m(x)|^2 / sum |x - mean|^2 over vision tokens; m(x) is the token x merged into"
    )

    def judge(self, reading: Reading, reduction: Reduction) -> Tensor:
        states, vision = reading.view.hidden.float(), reading.layout.vision[..., None]
        lost = ((states - _restored(states, reduction)) ** 2 * vision).sum((1, 2))
        centre = (states * vision).sum(1, keepdim=True) / vision.sum(1, keepdim=True)
        return lost / (((states - centre) ** 2) * vision).sum((1, 2))


@register
@dataclass(frozen=True)
class MergeAgreement(MergeQuantity):
    """How much the sources of a merged token agree with it."""

    name: ClassVar[str] = "merge_agreement"
    definition: ClassVar[str] = (
        "mean cos(x, m(x)) over tokens x that one stage merges; m(x) is the token they become"
    )

    def judge(self, reading: Reading, reduction: Reduction) -> Tensor:
        states = reading.view.hidden.float()
        cosine = F.cosine_similarity(states, _restored(states, reduction), dim=-1)
        slot = reduction.target.clamp_min(0)
        merged = (reduction.sizes().gather(1, slot) > 1) & (reduction.target >= 0)
        return (cosine * merged).sum(1) / merged.sum(1)


def _restored(states: Tensor, reduction: Reduction) -> Tensor:
    """(B, N, D): every old token as the new token that it went into."""
    slot = reduction.target.clamp_min(0)[..., None]
    return reduction.apply(states).gather(1, slot.expand_as(states))
