"""Replay of reference cases that hold inputs and outputs of the released TGV-KV code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.compressor import Observation
from lightkv.contract.decoding import DecodeView, HeldCounts
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.retention import Retention
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.methods.tgvkv import TGVKV
from lightkv.eviction.methods.tgvkv_released import ReleasedTextVision, drop_counts, forget_share
from lightkv.eviction.parts.decoding import surplus

Case = Mapping[str, Any]
Arrays = Mapping[str, npt.NDArray[Any]]

TEXT_OFFSET = 100.0  # the released code adds this to the score of every text entry


def replay(case: Case, arrays: Arrays) -> list[str]:
    """Run one case through the library.

    Args:
        case: Its entry in the index.
        arrays: Its arrays.

    Returns:
        One line per departure from the reference, none if it is reproduced.
    """
    method = evictor(case)
    views = layer_views(case, arrays)
    layout = views[0].layout
    try:
        method.check(ModelFacts(len(views), int(case["heads"]), int(case["kv_heads"]), 1))
        method.check_layout(layout)
    except InputError as error:
        return [] if case.get("raises") else [f"refused: {error}"]
    if case.get("raises"):
        return [f"accepted a prompt on which the reference raises {case['raises']}"]
    observations = [method.observe(view) for view in views]
    retentions = method.retain(observations)
    report = Report([])
    _compare_scores(report, observations, method, arrays)
    _compare_kept(report, retentions, arrays)
    if "dec_attn" in arrays and not report.lines:
        _replay_decode(report, case, method, retentions, arrays)
    return report.lines


@dataclass(frozen=True)
class Report:
    """Collects the lines in which a replay departs from its reference."""

    lines: list[str]

    def close(
        self, name: str, got: Tensor, want: npt.NDArray[Any], *, rtol: float = 0, atol: float = 0
    ) -> None:
        """Compare numbers within a tolerance; NaN equals NaN."""
        have = got.numpy()
        if have.shape != want.shape:
            self.lines.append(f"{name}: shape {have.shape} instead of {want.shape}")
        elif not np.allclose(have, want, rtol=rtol, atol=atol, equal_nan=True):
            worst = float(np.nanmax(np.abs(have - want)))
            self.lines.append(f"{name}: differs by up to {worst:.3g}")

    def same(self, name: str, got: list[int], want: npt.NDArray[Any]) -> None:
        """Compare whole numbers exactly."""
        expected = want.reshape(-1).tolist()
        if got != expected:
            self.lines.append(f"{name}: {got} instead of {expected}")


def evictor(case: Case) -> Evicting:
    """The released method with the case's settings."""
    method = TGVKV.released(
        1 - float(case["ratio"]),
        protect_first=int(case["start_size"]),
        protect_last=int(case["protect_size"]),
    )
    seen = int(case["num_of_token"])
    if seen == int(case["S"]):
        return method
    return replace(method, budget=ReleasedTextVision(seen))


def layer_views(case: Case, arrays: Arrays) -> list[LayerView]:
    """The prompt as the method sees it, layer by layer."""
    vision = torch.from_numpy(arrays["input_ids"] == int(case["image_token_id"]))
    layout = _layout(vision)
    length = layout.length
    sizes = torch.ones(1, length, dtype=torch.int64)
    attention = torch.from_numpy(arrays["attn"])
    return [
        LayerView(
            layer=layer,
            layers=len(attention),
            hidden=torch.zeros(1, length, 1),
            layout=layout,
            sizes=sizes,
            attention=GivenAttention(attention[layer : layer + 1]),
        )
        for layer in range(len(attention))
    ]


def _layout(vision: Tensor) -> TokenLayout:
    """Layout of one prompt whose images are runs of vision tokens, each one row of cells."""
    after = vision.cumsum(0) > 0
    kinds = torch.where(after, int(TokenKind.TEXT), int(TokenKind.SYSTEM))
    kinds = torch.where(vision, int(TokenKind.VISION), kinds)
    starts = vision & ~torch.cat([torch.zeros(1, dtype=torch.bool), vision[:-1]])
    number = starts.cumsum(0)[vision]
    grids = [Grid(1, 1, int(count)) for count in torch.bincount(number)[1:]] if len(number) else []
    return single_layout(kinds, grids)


def _compare_scores(
    report: Report, observations: list[Observation], method: Evicting, arrays: Arrays
) -> None:
    layout = observations[0].layout
    score = torch.stack([o.score[0] for o in observations])
    strengths = torch.stack([o.strength for o in observations], 1)
    lengths = layout.prompt_lengths[:, None].expand_as(strengths)
    forget = forget_share(strengths, method.nominal(lengths), lengths)
    if "score" in arrays:
        text, want = layout.text[0], arrays["score"]
        offset = score[:, text] + TEXT_OFFSET
        report.close("score of text", offset, want[:, text.numpy()], atol=2e-5)
        vision = score[:, ~text]
        report.close("score of vision", vision, want[:, ~text.numpy()], rtol=1e-5, atol=1e-9)
    if "cross_sum" in arrays:
        report.close("cross_sum", strengths[0], arrays["cross_sum"], rtol=1e-5)
    if "forget_ratio" in arrays:
        report.close("forget_ratio", forget[0], arrays["forget_ratio"], atol=1e-5)
    if "forget_num" in arrays:
        counts = drop_counts(forget, lengths)[0].tolist()
        report.same("forget_num", counts, arrays["forget_num"])


def _compare_kept(report: Report, retentions: list[Retention], arrays: Arrays) -> None:
    lengths = [int(r.counts[0, 0]) for r in retentions]
    report.same("kept_len", lengths, arrays["kept_len"])
    flat = [i for r in retentions for i in r.index[0, 0][r.valid[0, 0]].tolist()]
    report.same("kept_flat", flat, arrays["kept_flat"])
    if "initial_text_len" in arrays:
        tails = [int(r.tail[0]) for r in retentions if r.tail is not None]
        report.same("initial_text_len", tails, arrays["initial_text_len"])


def _replay_decode(
    report: Report,
    case: Case,
    method: Evicting,
    retentions: list[Retention],
    arrays: Arrays,
) -> None:
    """Feed the stored attention to the decode policy, step by step, layer by layer."""
    policy = method.decode_policy()
    start, seen = int(case["S"]), int(case["num_of_token"])
    final: list[list[int]] = []
    for layer, retention in enumerate(retentions):
        held = retention.index[0, 0][retention.valid[0, 0]]
        for step, attention in enumerate(torch.from_numpy(arrays["dec_attn"])[:, layer]):
            held = torch.cat([held, torch.tensor([start + step])])
            view = _decode_view(layer, held, seen + step + 1, attention, retention)
            where = f"step {step}, layer {layer}"
            report.same(f"{where}: dec_len", [len(held)], arrays["dec_len"][step, layer])
            if report.lines:
                return
            surplus_now = [int(surplus(HeldCounts.of(view))[0, 0])]
            report.same(f"{where}: dec_forget", surplus_now, arrays["dec_forget"][step, layer])
            dropped = policy.evict(view)
            gone = torch.zeros_like(held).bool() if dropped is None else dropped[0, 0]
            slot = gone.nonzero()[:, 0].tolist() or [-1]
            report.same(f"{where}: dec_drop_slot", slot, arrays["dec_drop_slot"][step, layer])
            place = held[gone].tolist() or [-1]
            report.same(f"{where}: dec_drop_pos", place, arrays["dec_drop_pos"][step, layer])
            held = held[~gone]
            after = arrays["dec_len_after"][step, layer]
            report.same(f"{where}: dec_len_after", [len(held)], after)
        final.append(held.tolist())
    report.same("final_len", [len(held) for held in final], arrays["final_len"])
    report.same("final_flat", [i for held in final for i in held], arrays["final_flat"])


def _decode_view(
    layer: int, held: Tensor, seen: int, attention: Tensor, retention: Retention
) -> DecodeView:
    """One layer's cache of one row, with the newest token's attention (H, Kmax)."""
    return DecodeView(
        layer=layer,
        position=held[None, None],
        valid=torch.ones(1, 1, len(held), dtype=torch.bool),
        seen=torch.tensor([seen]),
        budget_ratio=retention.budget_ratio,
        tail=retention.tail,
        attention=attention[None, :, : len(held)].mean(1, keepdim=True),
        kept=retention.counts,
    )
