"""Logit lens: what the model's own head reads in the middle of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from analysis.probing.quantities.base import Heads, LayerQuantity, Reading, kind_mask, register
from lightkv.errors import UnsupportedError

# Positions whose logits over the vocabulary are held at once.
_BLOCK = 256


@dataclass(frozen=True)
class Lens(LayerQuantity):
    """Final norm and output head applied to hidden states (nostalgebraist, 2020).

    Words that are equally likely come in either order, and so do words that differ by rounding
    alone: then ids may change with the processor and the batch, their probabilities don't.

    Attributes:
        top: How many of the most likely tokens are kept.
        kind: Which positions are read ("vision", "text", "system" or "all").
    """

    top: int = 3
    kind: str = "vision"

    def dims(self, heads: Heads) -> tuple[str, ...]:
        return ("key", "rank")

    def coordinates(self) -> Mapping[str, Sequence[Any]]:
        return {"rank": list(range(self.top))}

    def best(self, reading: Reading) -> tuple[Tensor, Tensor]:
        """Probabilities float32 and ids int64 (B, N, top); 0 and -1 at other positions."""
        norm, head = _head(reading.model)
        hidden = reading.view.hidden
        shape = (*hidden.shape[:2], self.top)
        share = torch.zeros(shape, device=hidden.device)
        ids = torch.full(shape, -1, device=hidden.device)
        where = kind_mask(reading.layout, self.kind).nonzero()
        for start in range(0, len(where), _BLOCK):
            rows, columns = where[start : start + _BLOCK].unbind(1)
            logits = head(norm(hidden[rows, columns])).float()
            best = torch.softmax(logits, -1).topk(self.top, -1)
            share[rows, columns], ids[rows, columns] = best.values, best.indices
        return share, ids


@register
@dataclass(frozen=True)
class LogitLens(Lens):
    """Ids of the tokens that the head would say at each vision position."""

    name: ClassVar[str] = "logit_lens"
    units: ClassVar[str] = "token id"
    definition: ClassVar[str] = "ids of the largest softmax(head(norm(x[j]))), most likely first"
    dtype: ClassVar[str] = "int64"

    def measure(self, reading: Reading) -> Tensor:
        return self.best(reading)[1]


@register
@dataclass(frozen=True)
class LogitLensProbability(Lens):
    """Probabilities of those tokens."""

    name: ClassVar[str] = "logit_lens_probability"
    definition: ClassVar[str] = "largest values of softmax(head(norm(x[j])))"

    def measure(self, reading: Reading) -> Tensor:
        share, ids = self.best(reading)
        return torch.where(ids >= 0, share, torch.nan)


def _head(model: Any) -> tuple[Any, Any]:
    """Final norm and output head of a model.

    Raises:
        UnsupportedError: If the model has no such parts where they are expected.
    """
    decoder = model.get_decoder()
    norm = getattr(decoder, "norm", None) or getattr(decoder, "final_layernorm", None)
    head = model.get_output_embeddings()
    if norm is None or head is None:
        raise UnsupportedError(f"{type(model).__name__} shows no final norm or no output head")
    return norm, head
