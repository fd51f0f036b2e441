"""What an entry of the zoo is: a config, how its pictures are written, and prompts about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightkv.families import family_of
from lightkv.vlm import VLM

Row = dict[str, Tensor]
#: A picture of a kind ("wide", "tall", "video") in a row of several: ids (n,) and its tensors.
Painter = Callable[[Any, str, int, torch.Generator], tuple[Tensor, Row]]
#: Adds to a finished row what the family's processor adds; gets the number of pictures.
Finisher = Callable[[Row, int], None]


@dataclass(frozen=True)
class TinyModel:
    """One entry of the zoo.

    Attributes:
        name: Of the entry; several may share a family.
        config: Makes the config.
        paint: Writes one picture.
        finish: Completes a row of the prompt; None where nothing is missing.
        series: Pictures of the rows after the first two, which ask about one picture each.
    """

    name: str
    config: Callable[[], Any]
    paint: Painter
    finish: Finisher | None = None
    series: Sequence[Sequence[str]] = (("wide", "tall"),)

    def build(self, attention: str = "sdpa", seed: int = 0) -> VLM:
        """The model with random weights."""
        return random_model(self.name, self.config(), attention, seed)

    def rows(self, config: Any) -> list[Row]:
        """Prompts of one row each: a short question about one picture, a longer one, the series."""
        plan = [(("wide",), 5), (("tall",), 9), *((kinds, 3) for kinds in self.series)]
        return [
            self._row(config, kinds, question, seed) for seed, (kinds, question) in enumerate(plan)
        ]

    def row_about(self, config: Any, pictures: int) -> Row:
        """One row with a long question about several pictures."""
        return self._row(config, ("wide",) * pictures, 64, 0)

    def _row(self, config: Any, kinds: Sequence[str], question: int, seed: int) -> Row:
        """Three words, pictures with two words after each, ``question`` words of a question."""
        generator = torch.Generator().manual_seed(seed)

        def words(count: int) -> Tensor:
            return torch.randint(3, 130, (count,), generator=generator)

        parts, tensors = [words(3)], []
        for kind in kinds:
            ids, extra = self.paint(config, kind, len(kinds), generator)
            parts += [ids, words(2)]
            tensors.append(extra)
        ids = torch.cat([*parts, words(question)])[None]
        row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for key in {key for extra in tensors for key in extra}:
            row[key] = _join([extra[key] for extra in tensors if key in extra])
        if self.finish is not None:
            self.finish(row, len(kinds))
        return row


def random_model(
    name: str, config: Any, attention: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> VLM:
    """A model with random weights, on torch's default device, that never ends an answer."""
    from transformers import AutoModelForImageTextToText

    config._attn_implementation = attention
    from_config: Any = AutoModelForImageTextToText.from_config
    model = from_config(config, attn_implementation=attention, dtype=dtype)
    randomize(model, seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return VLM(name, model.eval(), None, family_of(config.model_type))


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that logits tell inputs apart."""
    first = next(model.parameters())
    generator = torch.Generator(first.device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter.shape[-1] if parameter.dim() == 2 else parameter[0].numel()
            scale = 1.0 if "embed_tokens" in name else 1.6 / math.sqrt(fan_in)
            parameter.data.normal_(0, scale, generator=generator)
        elif "norm" not in name.lower():
            parameter.data.normal_(0, 0.1, generator=generator)


def stack(rows: Sequence[Row]) -> Row:
    """Left-pad rows to a batch; pictures follow each other as the models expect them."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    batch: Row = {}
    for key in {key for row in rows for key in row}:
        values = [row[key] for row in rows if key in row]
        if rows[0].get(key) is not None and rows[0][key].shape == rows[0]["input_ids"].shape:
            pad = torch.nn.functional.pad
            values = [pad(value, (longest - value.shape[1], 0), value=0) for value in values]
        patches = key == "pixel_values" and values[0].dim() == 3
        batch[key] = torch.cat(values, 1) if patches else _join(values)
    return batch


def _join(values: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension, the others zero-padded to the largest."""
    largest = [max(sizes) for sizes in zip(*(v.shape[1:] for v in values), strict=True)]
    padded = []
    for value in values:
        missing = [
            n for size, big in zip(value.shape[1:], largest, strict=True) for n in (big - size, 0)
        ]
        padded.append(torch.nn.functional.pad(value, missing[::-1]))
    return torch.cat(padded)


def nest_pixels(row: Row, pictures: int) -> None:
    """Pixels of a row's pictures get a batch dimension in front."""
    row["pixel_values"] = row["pixel_values"][None]
