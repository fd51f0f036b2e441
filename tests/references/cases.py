"""Random prompts as the package sees them and as the references do, and cases that are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import LayerView, ModelFacts
from tests.merging.views import row_layout
from tests.references.calls import Calls
from tests.references.scores import Layer, Prompt, attention_of

Answer = TypeVar("Answer")

FACTS = ModelFacts(layers=3, heads=4, kv_heads=2, hidden_size=8)
WIDTH, SCALING = 6, 0.7
ROWS = 3
TELLING = 2e-5
"""Share of the largest score by which a choice must stand out of single precision."""


@dataclass
class Batch:
    """Prompts of different lengths as one left-padded batch, and each by itself.

    Attributes:
        views: One per layer.
        prompts: One per row.
        share: The retention asked for, two digits.
    """

    views: list[LayerView]
    prompts: list[Prompt]
    share: float

    @property
    def layout(self) -> TokenLayout:
        return self.views[0].layout

    def padding(self, row: int) -> int:
        return self.layout.length - self.prompts[row].length


@cache
def batch(number: int, large: bool = False) -> Batch:
    """Draw of a number, the same for every method.

    Args:
        number: Of the draw.
        large: One image of 8 x 8 tokens, so that a window of 64 does not hold the prompt.
    """
    return drawn(np.random.default_rng(number), large)


def drawn(rng: np.random.Generator, large: bool = False) -> Batch:
    """One batch of random prompts, several images in some."""
    layouts = []
    for _ in range(ROWS):
        images = int(rng.integers(1, 4))
        grids = [Grid(1, *(int(n) for n in rng.integers(1, 4, 2))) for _ in range(images)]
        if large:
            grids = [Grid(1, 8, 8)]
        # A few vision tokens at least: skewness needs three.
        grids[0] = Grid(1, max(2, grids[0].rows), max(2, grids[0].cols))
        system, between, text = rng.integers([0, 0, 1], [6, 3, 7]).tolist()
        layouts.append(row_layout(grids, system=system, between=between, text=text))
    share = float(rng.integers(8, 95)) / 100
    facts, prompts, states = FACTS, [], []
    for layout in layouts:
        shape = (facts.layers, facts.heads + 2 * facts.kv_heads, layout.length, WIDTH)
        row = rng.standard_normal(shape, dtype=np.float32)
        # Now and then a few keys draw most of the attention, as sinks do.
        row[:, facts.heads : facts.heads + facts.kv_heads, 0] *= rng.choice([1.0, 2.0])
        states.append(row)
        prompts.append(_prompt(layout, row.astype(np.float64)))
    layout = TokenLayout.stack(layouts)
    return Batch([_view(layout, states, layer) for layer in range(facts.layers)], prompts, share)


def _parts(row: np.ndarray, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    heads, kv = FACTS.heads, FACTS.kv_heads
    parts = row[layer]
    return parts[:heads], parts[heads : heads + kv], parts[heads + kv :]


def _prompt(layout: TokenLayout, row: np.ndarray) -> Prompt:
    vision, question = layout.vision[0], layout.question[0]
    kinds = "".join(
        "v" if seen else "t" if said else "s"
        for seen, said in zip(vision.tolist(), question.tolist(), strict=True)
    )
    layers = []
    for layer in range(FACTS.layers):
        queries, keys, values = _parts(row, layer)
        layers.append(Layer(attention_of(queries, keys, SCALING), keys, values))
    return Prompt(kinds, layers)


def _view(layout: TokenLayout, states: list[np.ndarray], layer: int) -> LayerView:
    length, real = layout.length, layout.real
    padded = []
    for row in states:
        wide = np.full((row.shape[1], length, WIDTH), 9.0, dtype=np.float32)
        wide[:, length - row.shape[2] :] = row[layer]
        padded.append(torch.from_numpy(wide))
    both = torch.stack(padded)
    queries, keys, values = both.split([FACTS.heads, FACTS.kv_heads, FACTS.kv_heads], 1)
    mask = torch.ones(length, length).tril().bool() & real[:, None, :] & real[:, :, None]
    return LayerView(
        layer=layer,
        layers=FACTS.layers,
        hidden=torch.zeros(len(states), length, FACTS.hidden_size),
        layout=layout,
        sizes=real.long(),
        attention=ProjectedAttention(queries, keys, SCALING, mask[:, None]),
        keys=keys,
        values=values,
    )


def told(reference: Callable[..., Answer], *arguments: Any) -> Answer | None:
    """What a reference says, None where it depends on less than single precision holds."""
    calls = Calls()
    answer = reference(*arguments, calls)
    return answer if calls.closest > TELLING else None
