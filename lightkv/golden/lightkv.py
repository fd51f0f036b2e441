"""Replay of LightKV reference cases: the released merging module as a black box.

A case is a chain of stages.  Each stage gives hidden states, raw attention logits and image spans,
and what the released code made of them.  The replay drives :meth:`LightKV.released` through the
same views that a model would give it and lists every difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.view import LayerView
from lightkv.merging.lightkv import LightKV, StageSkippedWarning

Arrays = Mapping[str, NDArray[Any]]

# Absolute tolerance of merged hidden states by their precision, relative one of token weights.
HIDDEN_TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
WEIGHT_TOLERANCE = 1e-5


def skip_reason(case: Mapping[str, Any]) -> str | None:
    """Why a case is not replayed, or None if it is.

    Only cases tagged "quirk" may be left out. One of them is refused on purpose: image spans that
    reach beyond the sequence (the released code drops such an image and takes what is left of it
    for text).
    """
    if "quirk" not in case.get("tags", ()):
        return None
    for stage in case["stages"]:
        spans = [*stage["spans_in"], *stage["spans_out"]]
        if any(last >= stage["S_in"] for _, last in spans):
            return "image spans beyond the end of the sequence are malformed input"
    return None


def replay(case: Mapping[str, Any], arrays: Arrays) -> list[str]:
    """Replay one case; one line per difference, none if all agree.

    Args:
        case: The case's entry of the index.
        arrays: Its arrays, by name.
    """
    stages = case["stages"]
    method = LightKV.released(
        "qwen",
        tuple(range(len(stages))),
        tuple(stage["w"] for stage in stages),
        tuple(stage["ratio"] for stage in stages),
    )
    lines: list[str] = []
    layout = span_layout(arrays["s0_spans_in"], len(arrays["s0_hidden_in"]))
    hidden = _tensor(arrays["s0_hidden_in"])[None]
    for number, stage in enumerate(stages):
        tensors = {
            key.removeprefix(f"s{number}_"): _tensor(arrays[key])
            for key in arrays
            if key.startswith(f"s{number}_")
        }
        view = LayerView(
            layer=number,
            layers=len(stages) + 1,
            hidden=hidden,
            layout=layout,
            sizes=torch.ones_like(layout.kind),
            attention=GivenAttention(raw=tensors["attn"][None]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StageSkippedWarning)
            differences = _compare(method, view, stage, tensors, bool(case.get("tie_sensitive")))
            reduction = method.reduce(view)
            spans = _spans_out(method, view, reduction)
        lines += [f"stage {number}: {line}" for line in differences]
        hidden = _dealt(reduction.apply(hidden), layout.vision.gather(1, reduction.index), spans)
        layout = span_layout(spans.numpy(), hidden.shape[1])
    return lines


def span_layout(spans: NDArray[np.int64], length: int) -> TokenLayout:
    """Layout (1, N) of a sequence whose images occupy inclusive spans; no grid is known."""
    kind = torch.full((1, length), int(TokenKind.TEXT))
    image = torch.full_like(kind, -1)
    for number, (first, last) in enumerate(np.asarray(spans).tolist()):
        kind[0, first : last + 1] = int(TokenKind.VISION)
        image[0, first : last + 1] = number
    kind[0, : int(spans[0][0])] = int(TokenKind.SYSTEM)
    nowhere = torch.full_like(kind, -1)
    position = torch.arange(length)[None]
    return TokenLayout(kind, image, nowhere, nowhere, nowhere, nowhere, position, ((),))


def _compare(
    method: LightKV,
    view: LayerView,
    stage: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    ties: bool,
) -> list[str]:
    """Differences of one stage."""
    reduction = method.reduce(view)
    lines = []
    if bool(method.skipped(view).all()) != bool(stage["skipped"]):
        lines.append(f"skipped is {not stage['skipped']}, recorded {stage['skipped']}")
    if reduction.new_length != stage["S_out"]:
        return [*lines, f"{reduction.new_length} tokens left, recorded {stage['S_out']}"]
    lines += _differ("spans", _spans_out(method, view, reduction), tensors["spans_out"])
    if stage["skipped"]:
        lines += _differ("kept", reduction.index[0], tensors["kept"])
        left = reduction.apply(view.hidden)
        lines += _differ("hidden", left, view.hidden)
        return lines + _far("hidden", left[0], tensors["hidden_out"])
    if not ties:
        lines += _compare_merge(method, view, reduction, tensors)
        lines += _compare_hidden(view, reduction, tensors)
    return lines


def _compare_merge(
    method: LightKV, view: LayerView, reduction: Reduction, tensors: Mapping[str, Tensor]
) -> list[str]:
    """Windows, pairs, kept tokens, source matrix and weights, image by image."""
    cut, pairs = method.windows_of(view), method.pairs(view)
    vision = view.layout.vision[0]
    images, size = tensors["token_weight"].shape
    block, window = torch.from_numpy(cut.block[0]), torch.from_numpy(cut.window[0])
    rank = torch.full_like(block, -1)
    rank[vision] = torch.arange(int(vision.sum())) % size
    columns = (block, window, rank)
    ours = torch.stack([c[pairs.source] for c in columns] + [rank[pairs.target]], -1)
    order = torch.argsort(ours[:, 0] * (int(window.max()) + 1) + ours[:, 1], stable=True)
    kept = torch.stack([rank[reduction.index[0]][_of(block, reduction, i)] for i in range(images)])
    lines = _differ("pairs", _as_set(ours[order]), _as_set(tensors["pairs"]))
    lines += _differ("kept", kept, tensors["kept"].sort(-1).values)
    for image in range(images):
        lines += _differ("windows", window[block == image], tensors["window"])
    weight = method.importance(view)[0][vision].view(images, size)
    recorded = tensors["token_weight"]
    # Below the smallest normal number no relative precision is left.
    smallest = torch.finfo(recorded.dtype).tiny
    if not torch.allclose(weight, recorded, rtol=WEIGHT_TOLERANCE, atol=smallest):
        off = float(((weight - recorded).abs() / recorded.clamp_min(smallest)).max())
        lines.append(f"token weights differ by {off:.2g} relative")
    if "source_sorted" in tensors:
        # From the assignment: a token whose weight vanishes still went where it went.
        slots = _of(block, reduction, 0).nonzero()[:, 0]
        sources = (reduction.target[0, block == 0] == slots[:, None]).to(torch.uint8)
        lines += _differ("source matrix", sources, tensors["source_sorted"])
    return lines


def _compare_hidden(
    view: LayerView, reduction: Reduction, tensors: Mapping[str, Tensor]
) -> list[str]:
    """Hidden states: merged ones within the tolerance, all others bit for bit.

    Bit for bit is meant against the stage's own input, and against the recorded output as long as
    the input is the recorded one. Text and vision rows are compared apart: where images differ in
    size, the released code moves tokens of one image to the place of the next, past the text
    between them.
    """
    ours = reduction.apply(view.hidden)[0]
    theirs = tensors["hidden_out"]
    mine = view.layout.vision[0][reduction.index[0]]
    recorded = span_layout(tensors["spans_out"].numpy(), len(theirs)).vision[0]
    if int(mine.sum()) != int(recorded.sum()):
        return [f"{int(mine.sum())} vision tokens left, recorded {int(recorded.sum())}"]
    lines = _differ("text", ours[~mine], theirs[~recorded])
    vision, expected = ours[mine], theirs[recorded]
    alone = (reduction.sizes()[0] == 1)[mine]
    copied = reduction.take(view.hidden)[0][mine]
    lines += _differ("copies of unmerged tokens", vision[alone], copied[alone])
    if torch.equal(view.hidden[0], tensors["hidden_in"]):
        lines += _differ("unmerged tokens", vision[alone], expected[alone])
    return lines + _far("merged tokens", vision, expected)


def _spans_out(method: LightKV, view: LayerView, reduction: Reduction) -> Tensor:
    """(I, 2) inclusive spans: each image's place, taken by as many tokens as its block has left.

    A stage that acts deals the vision tokens into one block per image; one that is skipped leaves
    them as they lie. Text between images keeps its count, so spans follow from the tokens left.
    """
    images = view.layout.image[0]
    acts = not bool(method.skipped(view).any())
    block = torch.from_numpy(method.windows_of(view).block[0]) if acts else images
    left = block[reduction.index[0]]
    spans, removed = [], 0
    for image in range(int(images.max()) + 1):
        place = (images == image).nonzero()[:, 0]
        first = int(place[0]) - removed
        count = int((left == image).sum())
        spans.append((first, first + count - 1))
        removed += len(place) - count
    return torch.tensor(spans)


def _dealt(hidden: Tensor, vision: Tensor, spans: Tensor) -> Tensor:
    """The sequence (1, K, D) as the released code leaves it: vision tokens fill the spans in order.

    Only where images of unequal size were dealt into equal blocks does a token move: past the text
    between two images.

    Args:
        hidden: (1, K, D), every token at its own place.
        vision: (1, K) bool.
        spans: (I, 2) inclusive.
    """
    places = span_layout(spans.numpy(), hidden.shape[1]).vision
    laid = torch.empty_like(hidden)
    laid[places], laid[~places] = hidden[vision], hidden[~vision]
    return laid


def _of(block: Tensor, reduction: Reduction, image: int) -> Tensor:
    """(K,) bool: new tokens whose representative lies in that block."""
    left: Tensor = block[reduction.index[0]]
    return left == image


def _as_set(pairs: Tensor) -> Tensor:
    """Pairs in a fixed order; the order of merges within a window is not compared."""
    unique: Tensor = torch.unique(pairs, dim=0)
    return unique


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _differ(what: str, ours: Tensor, theirs: Tensor) -> list[str]:
    """A line if two tensors are not equal, value by value."""
    if ours.shape != theirs.shape:
        return [f"{what}: shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}"]
    if torch.equal(ours, theirs.to(ours.dtype)):
        return []
    return [f"{what}: {int((ours != theirs).sum())} of {ours.numel()} values differ"]


def _far(what: str, ours: Tensor, theirs: Tensor) -> list[str]:
    """A line if hidden states of one shape differ by more than the tolerance of their precision."""
    off = float((ours - theirs).abs().max()) if ours.numel() else 0.0
    return [] if off <= HIDDEN_TOLERANCE[ours.dtype] else [f"{what} differ by {off:.2g}"]
