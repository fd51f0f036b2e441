"""Energy-ordered matching: tokens in large clusters of similar ones merge, the rest is protected.

*Accelerating Transformers with Spectrum-Preserving Token Merging* (PiToMe), Tran et al.,
NeurIPS 2024, arXiv 2405.16148.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.groups import Groups
from lightkv.contract.host import on_device
from lightkv.contract.similarity import cosine
from lightkv.merging.matching import Pairs, match

EnergyForm = Literal["paper", "released"]


def energies(hidden: Tensor, groups: Groups, margin: float, form: EnergyForm = "paper") -> Tensor:
    """Graph energy of each token: the mean of f(S) over its group, itself included.

    f(x) is x above the margin m and exp(x - m) - 1 below it; the released code takes x - m above.

    Args:
        hidden: (B, N, D).
        groups: (G, M) tokens that see each other.
        margin: m, falling with depth.
        form: Which f.

    Returns:
        (G, M) float32, minus infinity where invalid.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    states = hidden.flatten(0, 1)[groups.index].to(wide)
    similarity = cosine(states, states)
    above = similarity if form == "paper" else similarity - margin
    shaped = torch.where(similarity >= margin, above, torch.expm1(similarity - margin))
    shaped = torch.where(groups.valid[:, None], shaped, 0)
    energy = shaped.sum(-1) / groups.counts.clamp_min(1)[:, None]
    return energy.masked_fill(~groups.valid, -torch.inf)


def match_by_energy(
    hidden: Tensor,
    groups: Groups,
    energy: Tensor,
    merges: NDArray[np.int64],
    *,
    protect: bool = True,
) -> Pairs:
    """Tokens in order of falling energy alternate between sources and targets; k sources merge.

    Args:
        hidden: (B, N, D).
        groups: (G, M).
        energy: (G, M), see :func:`energies`. Ties: lowest index first;
            near-ties are decided by rounding.
        merges: (G,) on the host, merges k per group.
        protect: Only the 2k tokens of highest energy take part, so that all k sources merge; else
            all tokens do, and the k most similar pairs merge.
    """
    order = torch.argsort(energy, dim=-1, descending=True, stable=True)
    ranked = groups.index.gather(1, order)
    slots = torch.arange(ranked.shape[1], device=ranked.device)
    most = on_device(2 * merges, slots.device) if protect else groups.counts
    taking_part = replace(groups, index=ranked, valid=slots < most[:, None], filled=False)
    return match(hidden, taking_part, merges)
