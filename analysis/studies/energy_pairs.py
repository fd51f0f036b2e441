"""LightKV with another rule of pairing, which the method has no option for."""

from __future__ import annotations

from dataclasses import dataclass

from lightkv import LightKV
from lightkv.contract.groups import gather_groups
from lightkv.contract.view import LayerView
from lightkv.merging.matching import Pairs, merge_counts
from lightkv.merging.pitome import PiToMe


@dataclass(frozen=True)
class EnergyPaired(LightKV):
    """LightKV whose windows are paired as :class:`~lightkv.merging.pitome.PiToMe` pairs a prompt.

    Tokens alternate between sources and targets in order of graph energy instead of in order of
    place; as many merge.
    """

    def pairs(self, view: LayerView) -> Pairs:
        """Who merges with whom at ``view.layer``."""
        groups = gather_groups(self.windows_of(view).labels())
        merges = merge_counts(groups, self.ratios[self.layers.index(view.layer)])
        energy = PiToMe(self.layers, self.ratios)
        return energy.match(view, groups.to(view.hidden.device), merges)
