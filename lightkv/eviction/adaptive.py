"""Budgets by depth, by the mass or the shape of the scores, or by a measured profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightkv.contract.compressor import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.parts.allocation import Spread
from lightkv.eviction.parts.budgets import Budget, no_strength
from lightkv.eviction.parts.protection import ends
from lightkv.eviction.parts.rankings import check_window
from lightkv.eviction.parts.windows import window_moments

PyramidForm = Literal["linear", "released", "kvpress"]


@dataclass(frozen=True)
class Pyramid(Budget):
    """Budgets that fall linearly with depth (PyramidKV, arXiv 2406.02069).

    Attributes:
        beta: Ratio that sets the last layer's budget, mean / beta; the first gets 2 mean - last.
        window: Entries of the observation window.
        form: "linear" leaves the window out of the pyramid and meets the total. "released" does
            too, but floors the step, so that deeper layers hold a little more than the total
            allows, and is uniform for prompts under twice the budget. "kvpress" counts the window
            in the pyramid and is uniform where the last layer would not hold it.
    """

    beta: float = 20.0
    window: int = 64
    form: PyramidForm = "linear"

    def check(self, facts: ModelFacts) -> None:
        if self.beta < 1:
            raise InvalidValueError("beta", self.beta, "at least 1")
        check_window(self.window, 0)
        if self.form not in ("linear", "released", "kvpress"):
            raise InvalidValueError("form", self.form, "'linear', 'released' or 'kvpress'")

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        mean = nominal.mean(1, keepdim=True)
        longest = lengths.amax(1, keepdim=True).double()
        outside = 0 if self.form == "kvpress" else self.window
        base = mean - outside  # entries of a layer beyond the window
        low = (base / self.beta).floor() if self.form != "linear" else base / self.beta
        high = 2 * base - low
        if self.form == "kvpress":
            falls = (high <= longest) & (low >= self.window)
        else:
            high = torch.minimum(high, torch.maximum(longest - outside, base))
            low = 2 * base - high
            falls = base > 0
        if self.form == "released":
            falls = falls & (longest >= 2 * base)
        depth = torch.arange(nominal.shape[1], device=nominal.device)
        step = (high - low) / max(1, nominal.shape[1] - 1)
        step = step.floor() if self.form == "released" else step
        return torch.where(falls, high - depth * step + outside, nominal)


@dataclass(frozen=True)
class CumulativeMass(Budget):
    """Every layer keeps the same share of its score mass (PrefixKV, arXiv 2412.03409), online.

    The layer keeps its best entries until they hold a mass p, and p is such that all layers
    together meet the total.  That is to take, of all entries of all layers, those with the least
    mass before them in their own layer, so no search for p is needed.
    """

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        mass = score if score.dim() == 2 else score.mean(1)
        mass = torch.where(view.layout.real, mass, 0).clamp_min(0)
        return mass / mass.sum(1, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        before = []
        for layer, mass in enumerate(strengths):
            ordered = mass.double().sort(1, descending=True).values
            place = torch.arange(mass.shape[1], device=mass.device)
            missing = place >= lengths[:, layer, None]
            before.append((ordered.cumsum(1) - ordered).masked_fill(missing, torch.inf))
        # Stable, so that equal masses go to the lower layer.
        order = torch.argsort(torch.cat(before, 1), dim=1, stable=True)
        taken = torch.argsort(order, dim=1) < nominal.sum(1, keepdim=True).round()
        counts, start = [], 0
        for mass in strengths:
            counts.append(taken[:, start : start + mass.shape[1]].sum(1))
            start += mass.shape[1]
        return torch.stack(counts, 1).double()


@dataclass(frozen=True)
class Profile(Budget):
    """Shares of the layers measured before, on other prompts (PrefixKV, offline).

    Attributes:
        shares: One number per layer; their mean stands for the retention asked for.
    """

    shares: tuple[float, ...]

    @classmethod
    def measured(cls, kept: Tensor, lengths: Tensor) -> Profile:
        """Mean kept share of each layer, from kept entries (S, L) of prompts of length (S,)."""
        shares = (kept.double() / lengths.double()[:, None]).mean(0)
        return cls(tuple(shares.tolist()))

    def check(self, facts: ModelFacts) -> None:
        if len(self.shares) != facts.layers:
            raise InvalidValueError("shares", self.shares, f"one number per layer ({facts.layers})")
        if min(self.shares) < 0 or sum(self.shares) <= 0:
            raise InvalidValueError("shares", self.shares, "not negative, not all zero")

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        return no_strength(view)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        wanted = torch.tensor(self.shares, dtype=torch.float64, device=nominal.device) * lengths
        return wanted / wanted.sum(1, keepdim=True) * nominal.sum(1, keepdim=True)


@dataclass(frozen=True)
class StrengthSkewness(Budget):
    """Half by strength, half by skewness of the vision scores (AirCache, arXiv 2503.23956).

    No code was released.  Both are scaled to a mean of 1 over the layers; negative skewness
    counts as none.
    """

    needs_vision: ClassVar[bool] = True

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        vision = view.layout.vision
        value = (score if score.dim() == 2 else score.mean(1)).double() * vision
        count = vision.sum(1).double()
        mean = value.sum(1) / count.clamp_min(1)
        spread = torch.where(vision, value - mean[:, None], 0)
        deviation = (spread.square().sum(1) / (count - 1).clamp_min(1)).sqrt()
        cubes = (spread / deviation.clamp_min(1e-30)[:, None]).pow(3).sum(1)
        skewness = count / ((count - 1) * (count - 2)).clamp_min(1) * cubes
        return torch.stack([value.sum(1), skewness.clamp_min(0)], 1).float()

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        claims = torch.stack(list(strengths), 1).double()  # (B, L, 2)
        mean = claims.mean(1, keepdim=True)
        scaled = torch.where(mean > 0, claims / mean.clamp_min(1e-30), 1)
        return scaled.mean(2) * nominal


@dataclass(frozen=True)
class EntropyVariance(Budget):
    """Budgets by entropy and variance of the last queries' attention (CAKE, arXiv 2503.12491).

    P = H^(1/tau1) V^(1/tau2), H the entropy of the window's attention to earlier entries, V its
    variance over the window.  Each layer gets its window and a share by P of the rest.

    Attributes:
        window: Number of last queries, at least 2.
        tau1, tau2: Temperatures, above 0; the released code sets them per model.
    """

    window: int = 32
    tau1: float = 1.0
    tau2: float = 1.0
    needs_attention: ClassVar[bool] = True
    spread: ClassVar[Spread] = "even"

    def check(self, facts: ModelFacts) -> None:
        check_window(self.window, 2)
        for name, value in (("tau1", self.tau1), ("tau2", self.tau2)):
            if not value > 0:
                raise InvalidValueError(name, value, "above 0")

    def strength(self, view: LayerView, score: Tensor) -> Tensor:
        attention = view.read_attention()
        window = ends(view.layout, 0, self.window)
        outside = (view.layout.real & ~window)[:, None, None]
        entropy = torch.zeros(attention.batch_size, device=attention.device)
        for index, valid in attention.blocks(window):
            rows = attention.probabilities(index) * valid[:, None, :, None] * outside
            entropy -= (rows * (rows + 1e-10).log()).sum((1, 2, 3))
        _, variance = window_moments(view, window)
        variance = (variance * outside[:, 0]).sum((1, 2))
        return entropy.clamp_min(0) ** (1 / self.tau1) * variance ** (1 / self.tau2)

    def allocate(self, strengths: Sequence[Tensor], nominal: Tensor, lengths: Tensor) -> Tensor:
        claim = torch.stack(list(strengths), 1).double()
        total = claim.sum(1, keepdim=True)
        share = torch.where(total > 0, claim / total.clamp_min(1e-30), 1 / claim.shape[1])
        window = nominal.clamp_max(self.window)
        return window + share * (nominal - window).sum(1, keepdim=True)
