"""What a token counts for when tokens become one: prompt attention, one, its size, or chance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightkv.contract.attention import BLOCK_NUMBERS, Normalisation
from lightkv.contract.layout import TokenLayout
from lightkv.contract.marked import tokens
from lightkv.contract.view import EntriesView, LayerView

# Numbers that are hashed at once on a processor, so that they stay in its cache.
_HASHED_ON_HOST = 2**18

Guidance = Literal["prompt", "uniform", "size", "random"]
Prompt = Literal["text", "question"]


def prompt_tokens(layout: TokenLayout, prompt: Prompt) -> Tensor:
    """(B, N) bool: the prompt. "text" is all text, "question" the text after the first image."""
    return layout.question if prompt == "question" else layout.text


def prompt_importance(
    view: LayerView,
    *,
    prompt: Prompt = "text",
    normalise: Normalisation = "keys",
    masked: bool = False,
) -> Tensor:
    """Attention between each vision token and the prompt, over all heads (LightKV Eq. 7).

    Returns:
        (B, N) float32, zero outside the vision tokens.
    """
    layout = view.layout
    return view.read_attention().prompt_mass(
        layout.once(tokens, "vision"),
        layout.once(tokens, prompt),
        normalise=normalise,
        masked=masked,
        real=layout.real if layout.padded else None,
    )


def uniform_importance(view: EntriesView) -> Tensor:
    """(B, N) float32 ones: a plain mean of the merged tokens."""
    return torch.ones(view.layout.kind.shape, device=view.layout.kind.device)


def size_importance(view: EntriesView) -> Tensor:
    """(B, N) float32: original tokens that each one stands for (ToMe)."""
    return view.sizes.to(torch.float32)


def random_importance(view: LayerView, prompt: Prompt = "text") -> Tensor:
    """The released LLaVA path: uniform random numbers in place of the attention logits.

    One logit in [0, 1) is drawn per token, head and prompt key; a softmax over the tokens and a
    sum over heads and prompt keys follow, as for real logits. A draw depends on the run's seed,
    the layer, the row's own prompt and the token's position in it, so that a row of a batch draws
    what it would draw alone. Heads are counted in the layer's cached keys.

    Returns:
        (B, N) float32, zero outside the vision tokens.
    """
    layout = view.layout
    heads = 1 if view.keys is None else view.keys.shape[1]
    keys = prompt_tokens(layout, prompt).sum(1)
    draws = int(keys.max()) * heads
    total = torch.zeros(layout.kind.shape, device=view.hidden.device)
    at_once = _HASHED_ON_HOST if total.device.type == "cpu" else BLOCK_NUMBERS
    block = max(1, at_once // max(1, total.numel()))
    start = _mix(torch.tensor(view.row_seeds(), device=total.device))[:, None, None]
    for first in range(0, draws, block):
        number = torch.arange(first, min(first + block, draws), device=total.device)
        counter = layout.position[..., None] * 2**32 + number
        logits = _unit(_mix(_mix(counter) ^ start))
        shares = logits.exp() * layout.real[..., None]
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1)
        total += (shares * (number < keys[:, None, None] * heads)).sum(-1)
    return total * layout.vision


def _mix(value: Tensor) -> Tensor:
    """Scramble int64 numbers (the finaliser of splitmix64)."""
    value = value + -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        value = (value ^ _shift(value, shift)) * factor
    return value ^ _shift(value, 31)


def _shift(value: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's own copies the sign bit of int64."""
    return (value >> by) & ((1 << (64 - by)) - 1)


def _unit(value: Tensor) -> Tensor:
    """float32 numbers in [0, 1) from scrambled integers."""
    return _shift(value, 40).to(torch.float32) * 2.0**-24
