"""PiToMe: merge inside large clusters of similar tokens, protect the rest.

*Accelerating Transformers with Spectrum-Preserving Token Merging*, Tran et al., NeurIPS 2024,
arXiv 2405.16148, in the decoder and with LightKV's stages, as LightKV compares with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightkv.contract.groups import Groups
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.merging.energy import EnergyForm, energies, match_by_energy
from lightkv.merging.matching import Pairs, match
from lightkv.merging.staged import GlobalMerge

Shallow = Literal["protect", "split", "tome"]


@register("pitome")
@dataclass(frozen=True)
class PiToMe(GlobalMerge):
    """The tokens of highest graph energy merge among each other; all others are protected.

    Beside the attributes of :class:`~lightkv.merging.staged.GlobalMerge`, of which ``weighting`` is
    "size" by default, it has these.

    Attributes:
        form: Energy as in the "paper" or in the "released" code (which shifts similarities above
            the margin).
        margin: Similarity above which tokens attract; None is 0.9 - 0.9 layer / layers.
        shallow: What stages in the first half of the layers do. "protect" (paper): as all others.
            The released code's blocks do otherwise there: in "split" all tokens alternate in
            order of energy and the most similar pairs merge; "tome" is plain ToMe, as in its CLIP
            patch.
    """

    weighting: Literal["uniform", "size"] = "size"
    form: EnergyForm = "paper"
    margin: float | None = None
    shallow: Shallow = "protect"

    def check(self, facts: ModelFacts) -> None:
        """Refuse stages, ratios and margins out of range."""
        super().check(facts)
        if self.margin is not None and not math.isfinite(self.margin):
            raise InvalidValueError("margin", self.margin, "None or a finite number")

    def match(self, view: LayerView, groups: Groups, merges: NDArray[np.int64]) -> Pairs:
        """Energy-ordered split; all sources merge, unless shallow stages do otherwise."""
        variant = self.shallow if 2 * view.layer < view.layers else "protect"
        if variant == "tome":
            return match(view.hidden, groups, merges)
        margin = 0.9 - 0.9 * view.layer / view.layers if self.margin is None else self.margin
        energy = energies(view.hidden, groups, margin, self.form)
        return match_by_energy(view.hidden, groups, energy, merges, protect=variant == "protect")
