"""Reading images ahead of a question: the prompt up to them, and the same with them repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightkv.contract.compressor import Compressor, RepeatedReading
from lightkv.contract.layout import TokenLayout
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError
from lightkv.prompting import Request
from lightkv.settings import GREEDY
from lightkv.vlm import VLM


def before_question(vlm: VLM, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A processed batch up to the last vision token of each row, left-padded again.

    Raises:
        InputError: If a row has no image.
    """
    vision = vlm.layout(inputs).vision
    if not bool(vision.any(1).all()):
        raise InputError("reading ahead needs an image in every request")
    ends = [int(row.nonzero()[-1]) + 1 for row in vision]
    kept = [real[:end].bool() for real, end in zip(inputs["attention_mask"], ends, strict=True)]
    prefix = {}
    for name, value in inputs.items():
        if value.shape == inputs["input_ids"].shape:
            parts = [row[: len(keep)][keep] for row, keep in zip(value, kept, strict=True)]
            value = left_padded(parts)[0]
        prefix[name] = value
    return prefix


def scored(
    vlm: VLM, compressor: Compressor | None, requests: Sequence[Request], *, seed: int = 0
) -> Compressor | None:
    """The compressor itself, or what it becomes once the images have been read a second time.

    Args:
        vlm: The model.
        compressor: A method; one that reads images twice gets its scores here.
        requests: Whose images are read; row by row, each in a prompt of its own.
        seed: Of the run.

    Raises:
        InputError: If a request has no image.
        InvalidValueError: If such a method is part of a composition.
        UnsupportedError: If the model's images can't be repeated.
    """
    parts = () if compressor is None else compressor.parts
    twice = [part for part in parts if isinstance(part, RepeatedReading)]
    if not twice:
        return compressor
    if len(parts) > 1:
        allowed = f"{type(twice[0]).__name__} alone: what a stage took out can't be read again"
        raise InvalidValueError("compressor", str(compressor), allowed)
    method = twice[0]
    method.check(vlm.facts)
    rows = []
    for request in requests:
        prefix = before_question(vlm, vlm.encode([request]))
        watcher = _Repetition(method, prefix["input_ids"].shape[1])
        vlm.generate(
            repeated(vlm, prefix, method.between),
            seed=seed,
            observers=(watcher,),
            max_new_tokens=1,
            **GREEDY,
        )
        rows.append(watcher.scores)
    longest = max(row[0].shape[2] for row in rows)
    pad = torch.nn.functional.pad
    layers = [
        torch.cat([pad(score, (longest - score.shape[2], 0)) for score in layer])
        for layer in zip(*rows, strict=True)
    ]
    return method.with_scores(layers)


def repeated(vlm: VLM, prefix: Mapping[str, Tensor], instruction: str) -> dict[str, Tensor]:
    """One prompt that ends with its images, an instruction, and the images a second time.

    Args:
        vlm: The model.
        prefix: Of one row, without padding; see :func:`before_question`.
        instruction: Words between the images and their repetition.

    Raises:
        UnsupportedError: If the model's images can't be repeated.
    """
    words = vlm.processor.tokenizer(
        instruction, add_special_tokens=False, return_tensors="pt"
    ).input_ids.to(vlm.device)
    return with_repetition(vlm, prefix, words)


def with_repetition(vlm: VLM, prefix: Mapping[str, Tensor], words: Tensor) -> dict[str, Tensor]:
    """As :func:`repeated`, with the instruction as ids (1, T)."""
    shape = prefix["input_ids"].shape
    first = int(vlm.layout(prefix).vision[0].nonzero()[0])
    between = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    pictures = vlm.family.pictures_twice({n: v for n, v in prefix.items() if v.shape != shape})
    tokens = {}
    for name, value in prefix.items():
        if value.shape == shape:
            middle = between.get(name, torch.zeros_like(words)).to(value.dtype)
            tokens[name] = torch.cat([value, middle, value[:, first:]], 1)
    return {**pictures, **tokens}


class _Repetition:
    """Collects what a method makes of the layers of a prompt with a repetition.

    Args:
        method: What scores.
        length: Tokens of the prompt up to the end of its images.
    """

    def __init__(self, method: RepeatedReading, length: int) -> None:
        self.scores: list[Tensor] = []
        self._method = method
        self._length = length

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    def see(self, view: LayerView) -> None:
        repetition = view.layout.position >= self._length
        first = _first_vision(view.layout)
        context = (view.layout.position >= first) & ~repetition
        score = self._method.score_repetition(view, context, repetition)
        self.scores.append(score[..., : self._length])


def _first_vision(layout: TokenLayout) -> int:
    return int(layout.vision[0].nonzero()[0])


def left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of ids as (B, T) with zeros in front, and (B, T) bool of what is real."""
    longest = max(len(row) for row in rows)
    pad = torch.nn.functional.pad
    ids = torch.stack([pad(row, (longest - len(row), 0)) for row in rows])
    real = torch.stack([pad(torch.ones_like(row), (longest - len(row), 0)) for row in rows])
    return ids, real.bool()
