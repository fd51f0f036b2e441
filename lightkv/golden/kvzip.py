"""Replay of reference cases of KVzip: the score of a repetition, and what its code keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.compressor import Observation
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.view import LayerView
from lightkv.eviction.methods.kvzip import Competition, KVzip, threshold
from lightkv.golden.caches import Arrays, Case, compare_masks, compare_numbers, tensor

WITHIN: dict[str, Competition] = {"pair": "model", "uniform": "head"}


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    sinks, context = int(arrays["sink"]), int(arrays["context"])
    scores = _scores(arrays, sinks, context)
    lines = compare_numbers("score", scores[0, ..., sinks:], arrays["score"])
    layout = layout_of(sinks, context)
    seen = [Observation(layout, score, torch.ones(1)) for score in scores[0][:, None]]
    for share in ("0.3", "0.5", "0.9"):
        lowest = threshold(scores, layout.vision, float(share))
        lines += compare_numbers(f"threshold_{share}", lowest, arrays[f"threshold_{share}"])
        for name, over in WITHIN.items():
            retentions = KVzip(float(share), over, "released").retain(seen)
            wanted = tensor(arrays[f"valid_{name}_{share}"])
            lines += compare_masks(f"valid_{name}_{share}", retentions, wanted, sinks)
    return lines


def layout_of(sinks: int, context: int) -> TokenLayout:
    """System text and an image."""
    kinds = [int(TokenKind.SYSTEM)] * sinks + [int(TokenKind.VISION)] * context
    return single_layout(kinds, [Grid(1, 1, context)])


def _scores(arrays: Arrays, sinks: int, context: int) -> Tensor:
    """(1, L, H_kv, S + c) scores that the method gives to the repetition."""
    queries, keys = tensor(arrays["queries"]), tensor(arrays["keys"])
    length = keys.shape[2]
    layout = single_layout([int(TokenKind.TEXT)] * length)
    place = torch.arange(length)[None]
    repeated = place >= sinks + context
    inside = (place >= sinks) & ~repeated
    scores = []
    for number, (asking, asked) in enumerate(zip(queries, keys, strict=True)):
        # Only the rows of the repetition are given; the others are not read.
        padded = torch.nn.functional.pad(asking, (0, 0, length - asking.shape[1], 0))
        view = LayerView(
            layer=number,
            layers=len(queries),
            hidden=torch.zeros(1, length, 1),
            layout=layout,
            sizes=layout.real.long(),
            attention=ProjectedAttention(padded[None], asked[None], asked.shape[2] ** -0.5),
            keys=asked[None],
            values=asked[None],
        )
        score = KVzip(1.0).score_repetition(view, inside, repeated)
        scores.append(score[..., : sinks + context])
    return torch.stack(scores, 1)
