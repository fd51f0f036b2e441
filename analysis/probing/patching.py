"""Cache entries of one prompt in the place of another's: captured, swapped, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from analysis.probing.capture import decoder_layers
from analysis.probing.interventions import Tokens, check_answers, forced_logits, padded
from lightkv import VLM, Observer
from lightkv.contract.interventions import KVPatch
from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import plain
from lightkv.contract.view import LayerView
from lightkv.errors import InputError, UnsupportedError
from lightkv.prompting import Request

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False, eq=False)
class CapturedKV:
    """Cache entries of a batch after prefill.

    Attributes:
        keys, values: By layer (B, H_kv, N, d); keys after rotary embedding.
        layout: Of the prompts.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    layout: TokenLayout

    def __repr__(self) -> str:
        rows, heads, length, width = next(iter(self.keys.values())).shape
        return (
            f"CapturedKV({len(self.keys)} layers of {rows} prompts x {heads} heads x {length} "
            f"tokens x {width})"
        )

    def patch(self, layers: Sequence[int]) -> KVPatch:
        """The intervention that puts the vision entries of these layers into another prompt's.

        Raises:
            InvalidValueError: If the layers are not whole numbers.
        """
        return KVPatch(plain(layers), self.keys, self.values, self.layout)


class _Donors(Observer):
    """Keeps every layer's cache entries."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.layout: TokenLayout | None = None

    def see(self, view: LayerView) -> None:
        if view.keys is None or view.values is None:
            raise UnsupportedError(f"layer {view.layer} has no cache entries to give")
        self.keys[view.layer], self.values[view.layer] = view.keys.clone(), view.values.clone()
        self.layout = view.layout


def capture_kv(vlm: VLM, requests: Sequence[Request]) -> CapturedKV:
    """Cache entries of every layer, for :meth:`CapturedKV.patch` or for looking at them.

    Args:
        vlm: The model.
        requests: Questions of one batch.

    Raises:
        InputError: If a request can't be asked.
    """
    donors = _Donors()
    vlm.observe(requests, donors)
    if donors.layout is None:
        raise UnsupportedError("the run has shown no layer")
    return CapturedKV(donors.keys, donors.values, donors.layout)


def patches(
    vlm: VLM,
    requests: Sequence[Request],
    donors: Sequence[Request],
    answers: Sequence[Tokens],
    donor_answers: Sequence[Tokens],
    *,
    from_layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Vision entries of another image from one layer on: where does the answer follow them?

    Both answers are compared at the first token where they part, after what they share.

    Args:
        vlm: The model.
        requests: Questions of one batch.
        donors: The same questions about other images of the same size.
        answers: Tokens of the right answers for the questions' own images.
        donor_answers: The same for the donors' images; they differ.
        from_layers: Layers from which on entries are the donors', each tried; None for all.

    Returns:
        Columns sample, layer (the first with the donors' entries), preference (log-probability of
        the donor's token minus that of the question's own, nats), own and donor (whether that
        token is the most likely of all).

    Raises:
        InputError: If there are not as many donors, their vision tokens lie elsewhere, or two
            answers are the same.
        InvalidValueError: If a layer does not exist.
    """
    import pandas as pd

    firsts = decoder_layers(vlm.facts, from_layers)
    check_answers([*answers, *donor_answers])
    if not len(donors) == len(requests) == len(answers) == len(donor_answers):
        raise InputError(
            f"{len(donors)} donors and {len(answers)} and {len(donor_answers)} answers for "
            f"{len(requests)} questions; give one of each for each"
        )
    place = torch.tensor([_parting(*pair) for pair in zip(answers, donor_answers, strict=True)])
    rows = torch.arange(len(place))
    captured = capture_kv(vlm, donors)
    inputs, count = vlm.encode(requests), vlm.facts.layers
    original, donor = padded(answers)[0], padded(donor_answers)[0]
    ours, theirs = original[rows, place], donor[rows, place]
    parts = []
    for layer in firsts:
        patch = captured.patch(range(layer, count))
        logits = forced_logits(vlm, inputs, original, None, (patch,), 0)[rows, place]  # (B, V)
        parts.append(_compared(logits, ours, theirs).assign(layer=layer))
    return pd.concat(parts, ignore_index=True)[["sample", "layer", "preference", "own", "donor"]]


def _compared(logits: Tensor, ours: Tensor, theirs: Tensor) -> pd.DataFrame:
    """How far logits (B, V) prefer one token (B,) to another, and which is the most likely."""
    import pandas as pd

    rows, likeliest = torch.arange(len(logits)), logits.argmax(-1)
    columns = {
        "sample": rows,
        "preference": logits[rows, theirs] - logits[rows, ours],
        "own": likeliest == ours,
        "donor": likeliest == theirs,
    }
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _parting(one: Tokens, other: Tokens) -> int:
    """First place where two answers differ."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    raise InputError(
        "a question's answer and its donor's are the same; pair images with different answers"
    )


def donors_for(questions: Sequence[str], answers: Sequence[Any]) -> list[int | None]:
    """For each question another one with the same words and another answer, None if there is none.

    Each is given the next such question in order, so that donors vary.
    """
    partners: list[int | None] = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        order = [(number + step) % len(questions) for step in range(1, len(questions))]
        fitting = [o for o in order if questions[o] == question and answers[o] != answer]
        partners.append(fitting[0] if fitting else None)
    return partners
