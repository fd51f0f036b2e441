"""What leaves a layer's cache at a decode step, as the run's policy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.decoding import (
    CountedPolicy,
    DecodePolicy,
    DecodeView,
    HeldCounts,
    Leaving,
)
from lightkv.contract.host import on_device, on_host
from lightkv.engine.cache import LayerEntries


class Dropping:
    """A decode policy at work.

    Where the policy says how many entries leave, the host never waits: it counts them itself, and
    only which of them leave is found on the device.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: DecodePolicy) -> None:
        self._policy = policy
        self._decided: dict[int, dict[str, Any]] = {}

    def drop(
        self,
        layer: int,
        entries: LayerEntries,
        cached: Any,
        attention: Tensor | None,
        seen: Tensor,
        counted: NDArray[np.int64],
    ) -> bool:
        """Let entries leave a layer, now that the newest token joined; True if some did.

        Args:
            layer: 0-based.
            entries: Of the layer.
            cached: The layer's cache.
            attention: (B, H, T, K) of the newest tokens, None unless the policy asked for it.
            seen: (B,) int64, tokens of each row so far.
            counted: The same, on the host.
        """
        grouped = None if attention is None else _collect(entries, attention)
        if isinstance(self._policy, CountedPolicy):
            numbers = self._numbers(layer, entries)
            held = HeldCounts(layer=layer, lengths=entries.counts, seen=counted, **numbers)
            return _drop(entries, cached, self._policy.leaving(held), grouped)
        retention = entries.retention
        leaving = self._policy.evict(
            DecodeView(
                layer=layer,
                position=entries.position,
                valid=entries.valid,
                seen=seen,
                budget_ratio=None if retention is None else _beside(retention.budget_ratio, seen),
                tail=None if retention is None else _beside(retention.tail, seen),
                attention=grouped,
                score=entries.score,
                kept=None if retention is None else _beside(retention.counts, seen),
            )
        )
        if leaving is None or not bool(leaving.any()):
            return False
        entries.drop(cached, leaving)
        return True

    def _numbers(self, layer: int, entries: LayerEntries) -> dict[str, Any]:
        """What the retention says of a layer, on the host."""
        retention = entries.retention
        if retention is None:
            return {}
        if layer not in self._decided:
            ratio, tail = retention.budget_ratio, retention.tail
            self._decided[layer] = {
                "kept": on_host(retention.counts),
                "budget_ratio": None if ratio is None else on_host(ratio),
                "tail": None if tail is None else on_host(tail),
            }
        return self._decided[layer]


def _beside(values: Tensor | None, others: Tensor) -> Tensor | None:
    """Values on the device of the others."""
    return None if values is None else values.to(others.device)


def _collect(entries: LayerEntries, attention: Tensor) -> Tensor:
    """(B, G, K) float32 attention of the newest token; scores collect what all new ones pay.

    Args:
        entries: Of the layer, the T new tokens included.
        attention: (B, H, T, K) of the new tokens.
    """
    batch, _, count, slots = attention.shape
    rows = attention.view(batch, entries.groups, -1, count, slots).mean(2)  # (B, G, T, K)
    if entries.score is not None:
        paid = rows[:, :, 0]
        if count > 1:
            # Padding pays nothing. A token that comes alone is not padding.
            paid = (rows * entries.valid[:, :, slots - count :, None]).sum(2)
        entries.score = torch.nn.functional.pad(entries.score, (0, count)) + paid
    return rows[:, :, -1]


def _drop(entries: LayerEntries, cached: Any, leaving: Leaving, attention: Tensor | None) -> bool:
    if not leaving.counts.any():
        return False
    value = {"slot": None, "score": entries.score, "attention": attention}[leaving.by]
    if value is None and leaving.by != "slot":
        raise RuntimeError(f"the decode policy needs {leaving.by!r} and did not ask for it")
    if not entries.aligned or leaving.counts.max() > 1:
        entries.drop(cached, leaving.marked(entries.valid, value), leaving.counts)
    elif value is None and not entries.ragged and leaving.counts.all() and _same(leaving.first):
        entries.drop_slot(cached, int(leaving.first.flat[0]))
    else:
        victim = _victims(entries, leaving, value, cached.keys.device)
        entries.drop_victims(cached, victim, leaving.counts)
    return True


def _victims(
    entries: LayerEntries, leaving: Leaving, value: Tensor | None, device: torch.device
) -> Tensor:
    """(B, G) int64: slot of the one entry that leaves; -1 where none does.

    Args:
        entries: Hidden slots all come first.
        leaving: At most one of each row and group.
        value: (B, G, K) float32, what decides; None where the slot does.
        device: Of the result.
    """
    hidden = entries.slots - entries.counts
    first, stop = hidden + leaving.first, hidden + leaving.stop
    stays = leaving.counts == 0
    if value is None:
        return on_device(np.where(stays, -1, first), device)
    if not (hidden.any() or stays.any()) and _same(first) and _same(stop):
        start, end = int(first.flat[0]), int(stop.flat[0])
        return leaving.pooled(value[..., :end])[..., start:].argmin(-1) + start
    slots = np.arange(entries.slots)
    before = slots < stop[..., None]
    if leaving.kernel > 1:
        value = leaving.pooled(value * on_device(before & (slots >= hidden[..., None]), device))
    outside = on_device(~before | (slots < first[..., None]), device)
    victim = value.masked_fill(outside, torch.inf).argmin(-1)
    return victim.masked_fill(on_device(stays, device), -1) if stays.any() else victim


def _same(numbers: NDArray[np.int64]) -> bool:
    return bool((numbers == numbers.flat[0]).all())
