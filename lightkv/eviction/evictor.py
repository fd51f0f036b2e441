"""An evictor as a composition: budget over layers, ranking of entries, retention rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lightkv.contract.checks import check_count
from lightkv.contract.compressor import Evictor, Observation, Positions
from lightkv.contract.decoding import DecodePolicy, Grow
from lightkv.contract.host import all_on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.retention import Retention
from lightkv.contract.shapes import check_shape
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.eviction.parts.budgets import Budget, Uniform
from lightkv.eviction.parts.merges import AnchorMerge
from lightkv.eviction.parts.protection import protected
from lightkv.eviction.parts.rankings import Ranking, SelfAttention
from lightkv.eviction.parts.selections import ByScore, Selection
from lightkv.eviction.together import Kept, Layers, blocks, counts_of, keep, runs, split, stacked


@dataclass(frozen=True)
class Evicting(Evictor):
    """Drops cache entries once after prefill, then follows a decode policy.

    Attributes:
        budget: How many entries each layer keeps.
        ranking: Which entries matter.
        selection: What goes first.
        retention: Share of the entries in the cache that stay, in (0, 1]; 1 keeps everything, also
            while decoding, unless the decode policy has a capacity.
        entries: Number of entries per layer that stay, instead of a share.
        decode: What happens while decoding.
        merge: What evicted entries leave behind in kept ones; None for nothing.
        protect_first, protect_last: Entries at both ends of the prompt that always stay. They are
            paid from the budget, which is exceeded only where it is smaller than their number.
        protect_system: Protect the text before the first image as well.
        positions: Cached keys "keep" their rotary position, or take that of their place in the
            cache ("reindex"), as the queries that follow do.
        redistribute: Hand entries that a layer can't use (it has fewer, or must protect more) to
            the other layers, so that the total is met.
    """

    budget: Budget = Uniform()  # noqa: RUF009
    ranking: Ranking = SelfAttention()  # noqa: RUF009
    selection: Selection = ByScore()  # noqa: RUF009
    retention: float = 1.0
    entries: int | None = None
    decode: DecodePolicy = Grow()  # noqa: RUF009
    merge: AnchorMerge | None = None
    protect_first: int = 4
    protect_last: int = 1
    protect_system: bool = False
    redistribute: bool = True
    positions: Positions = "keep"

    @property
    def keeps_all(self) -> bool:
        """True if nothing will ever be evicted."""
        return self.entries is None and self.retention == 1 and not self.decode.bounds_whole_cache

    def check(self, facts: ModelFacts) -> None:
        if not 0 < self.retention <= 1:
            raise InvalidValueError("retention", self.retention, "above 0, at most 1")
        if self.entries is not None:
            if self.entries < 1:
                raise InvalidValueError("entries", self.entries, "at least 1")
            if self.retention != 1:
                raise InvalidValueError(
                    "retention", self.retention, "1 (the default) where entries is given"
                )
        if self.positions not in ("keep", "reindex"):
            raise InvalidValueError("positions", self.positions, "'keep' or 'reindex'")
        check_count("protect_first", self.protect_first, least=0)
        check_count("protect_last", self.protect_last, least=0)
        self.budget.check(facts)
        self.ranking.check(facts)
        self.selection.check(facts)
        self.decode.check()
        if self.merge is not None:
            self.merge.check(facts)

    def check_layout(self, layout: TokenLayout) -> None:
        for part in (self.budget, self.ranking, self.selection):
            if part.needs_vision:
                require(layout.vision, type(part).__name__, "a vision token (an image)")
            if part.needs_question:
                require(layout.question, type(part).__name__, "text after the image")

    def position_rule(self) -> Positions:
        return "keep" if self.keeps_all else self.positions

    def decode_policy(self) -> DecodePolicy:
        return Grow() if self.keeps_all else self.decode

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        needed = self.ranking.needs_attention or self.budget.needs_attention
        return tuple(range(facts.layers)) if needed else ()

    def queries(self, layout: TokenLayout) -> Tensor | None:
        ranked, budgeted = self.ranking.queries(layout), self.budget.queries(layout)
        return None if ranked is None or budgeted is None else ranked | budgeted

    def observe(self, view: EntriesView) -> Observation:
        rows, length = view.layout.kind.shape
        heads = None if view.keys is None else view.keys.shape[1]
        score = self.ranking.score(view)
        check_shape(self.ranking, "score", score, (rows, length), (rows, heads, length))
        score = score.float()
        strength = self.budget.strength(view, score)
        check_shape(self.budget, "strength", strength, (rows,), (rows, None))
        real = view.layout.real if score.dim() == 2 else view.layout.real[:, None]
        claims = self.ranking.claims(view)
        if claims is not None:
            check_shape(self.ranking, "claims", claims, (rows, heads, length))
            claims = torch.where(view.layout.real[:, None], claims.float(), 0)
        keys = view.keys if self._merges_keys else None
        score = torch.where(real, score, 0)
        return Observation(view.layout, score, strength, keys, claims)

    def observe_together(self, views: Sequence[EntriesView]) -> list[Observation]:
        observations: list[Observation] = []
        for layers in runs(views):
            for block in blocks(layers):
                whole = stacked(block, entries=self.ranking.needs_entries)
                observations += split(self.observe(whole), whole, block)
        if not self._merges_keys:
            return observations
        parts = zip(observations, views, strict=True)
        return [replace(observed, keys=view.keys) for observed, view in parts]

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        if self.keeps_all:
            return [one.layout.once(_everything) for one in observations]
        groups = [
            Layers(seen, self.selection.counted(layout), self.guarded(layout))
            for seen in runs(observations)
            for layout in (seen[0].layout,)
        ]
        # On the processor, in double precision, wherever the model runs.
        counts = counts_of(groups, self.selection)
        strengths = all_on_host([one.strength for one in observations])
        self._check_finite([bool(np.isfinite(one.numpy()).all()) for one in strengths])
        nominal = self.nominal(counts.shared)
        allocation = self.budget.decide(
            strengths, nominal, counts.counted, counts.paid, self.redistribute
        )
        kept: list[Kept] = []
        start = 0
        for group in groups:
            part = slice(start, start + len(group.observations))
            recent = None if allocation.recent is None else allocation.recent[:, part]
            kept.append(keep(group, allocation.entries[:, part], recent, self.selection))
            start = part.stop
        self._check_finite([finite for one in kept for finite in one.finite])
        always = torch.cat([one.always for one in kept]).T
        if allocation.least is not None:
            always = torch.maximum(always, allocation.least)
        requested = (allocation.requested + counts.uncounted).float()
        # Decode policies count all entries, also those that the budget does not.
        share = requested / counts.real
        ratio = torch.where(counts.uncounted > 0, share, allocation.ratio)
        asked = zip(requested.unbind(1), ratio.unbind(1), always.unbind(1), strict=True)
        layers = chain.from_iterable(
            zip(one.places, one.tail.unbind(0), one.counts.unbind(0), strict=True) for one in kept
        )
        unused = self.budget.unused + self.selection.unused
        return [
            Retention(*places, wanted, share, tail, merge, protected, unused, held)
            for (places, tail, held), (wanted, share, protected), merge in zip(
                layers, asked, self._merges(kept, observations), strict=True
            )
        ]

    def _merges(
        self, kept: Sequence[Kept], observations: Sequence[Observation]
    ) -> list[Reduction | None]:
        """What evicted entries leave behind, layer by layer."""
        if self.merge is None:
            return [None] * len(observations)
        masks = (pair for one in kept for pair in zip(one.keep, one.guarded, strict=True))
        return [
            self.merge.merge(keep, observed.layout, guarded, observed.keys)
            for (keep, guarded), observed in zip(masks, observations, strict=True)
        ]

    def guarded(self, layout: TokenLayout) -> Tensor:
        """(B, N) bool: entries that stay whatever the budget."""
        ends = protected(layout, self.protect_first, self.protect_last, self.protect_system)
        return ends | self.selection.fixed(layout)

    def nominal(self, lengths: Tensor) -> Tensor:
        """Entries (B, L) float64 that a uniform budget leaves of ``lengths`` (B, L)."""
        if self.entries is None:
            return self.retention * lengths.double()
        return torch.full_like(lengths, self.entries, dtype=torch.float64)

    @property
    def _merges_keys(self) -> bool:
        return self.merge is not None and self.merge.needs_keys

    def _check_finite(self, finite: Sequence[bool]) -> None:
        """Raise :class:`UnsupportedError` unless what each layer was given is finite."""
        if not all(finite):
            raise UnsupportedError(
                f"layer {finite.index(False)} gave scores that are not finite to "
                f"{type(self).__name__}: its attention or its keys hold NaN or infinity; load the "
                "model in bfloat16 or float32"
            )


def _everything(layout: TokenLayout) -> Retention:
    """The retention that evicts nothing."""
    lengths = layout.prompt_lengths
    tail = layout.question.sum(1).clamp_min(1)
    ratio = torch.ones_like(lengths, dtype=torch.float32)
    return Retention.from_keep(layout.real, lengths.float(), ratio, tail)


def require(mask: Tensor, part: str, what: str) -> None:
    """Raise :class:`InputError` if a row of the batch has no marked token."""
    missing = (~mask.any(1)).nonzero()[:, 0].tolist()
    if missing:
        raise InputError(f"{part} needs {what}; prompt {missing[0]} of the batch has none")
