"""Replay of DART reference cases: pivots, picks per pivot, and the vision tokens that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from lightkv.contract.layout import Grid, TokenKind, single_layout
from lightkv.contract.view import LayerView
from lightkv.pruning.dart import DART


def replay(case: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Replay one case in its recorded order of pivots; a line if the kept set differs.

    Args:
        case: The case's entry of the index.
        arrays: ``normed_states`` (n, D), ``keys`` (H, n, d), where the vision tokens are, and what
            the released code made of them.
    """
    start, vision = int(arrays["start"]), int(arrays["vision"])
    states = torch.from_numpy(arrays["normed_states"])[None]
    after = states.shape[1] - start - vision
    kinds = [TokenKind.SYSTEM] * start + [TokenKind.VISION] * vision + [TokenKind.TEXT] * after
    layout = single_layout(list(map(int, kinds)), [Grid(1, 1, vision)])
    seen, said = (arrays[f"{kind}_pivots_by_norm"].tolist() for kind in ("vision", "text"))
    method = DART(
        removed=float(arrays["removed"]),
        vision_pivots=int(arrays["pivots_vision"]),
        text_pivots=int(arrays["pivots_text"]),
        counting="float64",
        order=tuple((seen + said).index(token) for token in arrays["pivot_order"].tolist()),
    )
    method.check_layout(layout)
    view = LayerView(
        layer=method.layer - 1,
        layers=method.layer + 1,
        hidden=states,
        layout=layout,
        sizes=torch.ones_like(layout.kind),
        keys=torch.from_numpy(arrays["keys"])[None],
        final_norm=lambda hidden: hidden,
    )
    index = method.reduce(view).index[0]
    kept = index[(index >= start) & (index < start + vision)].tolist()
    wanted = arrays["kept"].tolist()
    lines = [] if kept == wanted else [f"kept {kept} instead of {wanted}"]
    picks = (len(kept) - len(seen)) // (len(seen) + len(said))
    if picks != int(arrays["per_pivot"]):
        lines.append(f"{picks} picks per pivot instead of {int(arrays['per_pivot'])}")
    return lines
