"""Every registered pruner and merger leaves what its reference leaves, states included."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from lightkv.catalogue import method
from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.compressor import Reducer
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import LayerView, PromptInputs, VisionFeatures
from tests.closeness import assert_close
from tests.merging.views import row_layout
from tests.references.cases import told
from tests.references.merging import MERGING, RATIO
from tests.references.pictures import Cell, Picture
from tests.references.pruning import KEPT, PRUNING, RATERS_HEADS, SHARE
from tests.references.tower import TOKENS, TOWER

DRAWS, ROWS, HEADS, WIDTH, KEYS, FEATURES, LAYERS = 30, 3, 4, 8, 4, 5, 10
LEAST = 80
"""Prompts that every test compares: 90 are drawn, close calls left out."""

REDUCERS = {**MERGING, **PRUNING, **TOWER}
STAGE: dict[str, Any] = {"layers": (0,), "ratios": (RATIO,)}
OPTIONS: dict[str, dict[str, Any]] = {
    "tome": STAGE,
    "pitome": STAGE,
    "tofu": STAGE,
    "lightkv": {**STAGE, "windows": (2,)},
    "fastv": {"layer": 1, "removed": 0.5},
    "pyramiddrop": {"layers": (1,), "ratios": (SHARE,)},
    "dart": {"layer": 1, "removed": 0.5, "vision_pivots": 2, "text_pivots": 1},
    "sparsevlm": {"layers": (0,), "kept": (KEPT,)},
    "uniform-grid": {"kept": SHARE},
    "downsample": {"kept": SHARE},
    "divprune": {"kept": 0.4},
    "cdpruner": {"tokens": TOKENS},
    "hired": {"kept": 0.5},
    "visionzip": {"dominant": 3, "contextual": 2},
    "vispruner": {"tokens": TOKENS, "step": 2},
    "hiprune": {"tokens": TOKENS, "alpha": 1.0},
    "prumerge": {"neighbours": 3},
    "prumerge-plus": {"neighbours": 3},
}
STAGES = {"tofu": (0, 5, 6), "pitome": (0, 3)}
"""Layers, of ten, after which a method acts otherwise: ToFu drops up to the fifth."""


def built(name: str, layer: int) -> Reducer:
    options = dict(OPTIONS.get(name, {}))
    if layer > 0:
        options["layers"] = (layer,)
    if name == "sparsevlm-plus":
        from lightkv.pruning import SparseVLM

        return SparseVLM(
            (0,), (KEPT,), recycle=False, heads=RATERS_HEADS, correct_rotary=True, positions="keep"
        )
    reducer = method(name, **options)
    assert isinstance(reducer, Reducer)
    return reducer


@cache
def drawn(number: int, layer: int, most: int) -> tuple[LayerView, list[Picture]]:
    """A batch of prompts with one or two grids each, as both sides see it."""
    rng, layouts = np.random.default_rng(number), []
    for _ in range(ROWS):
        grids = [
            Grid(1, *(int(n) for n in rng.integers(3, most + 1, 2)))
            for _ in range(int(rng.integers(1, 3)))
        ]
        system, between, text = rng.integers([0, 0, 1], [3, 3, 6]).tolist()
        layouts.append(row_layout(grids, system=system, between=between, text=text))
    pictures = [_picture(layout, rng, layer) for layout in layouts]
    return _view(TokenLayout.stack(layouts), pictures, layer), pictures


def _picture(layout: TokenLayout, rng: np.random.Generator, layer: int) -> Picture:
    count = layout.length
    cells: list[Cell | None] = []
    for n in range(count):
        cells.append(None)
        if bool(layout.vision[0, n]):
            segment = int(layout.segment[0, n])
            grid = layout.grids[0][segment]
            place = int(layout.row[0, n]), int(layout.col[0, n])
            cells[n] = Cell(int(layout.image[0, n]), segment, grid.rows, grid.cols, *place)
    kinds = "".join(
        "v" if seen else "t" if said else "s"
        for seen, said in zip(layout.vision[0].tolist(), layout.question[0].tolist(), strict=True)
    )
    logits = rng.standard_normal((HEADS, count, count))
    masked = np.where(np.tril(np.ones((count, count), bool)), logits, -np.inf)
    raised = np.exp(masked - masked.max(-1, keepdims=True))
    angles = np.arange(count)[:, None] / 10.0 ** (np.arange(0, KEYS, 2) / KEYS)
    angles = np.concatenate([angles, angles], 1)
    # A class token's attention has a long tail.
    tails = {name: np.exp(1.5 * rng.standard_normal(count)) / count for name in ATTENTIONS}
    return Picture(
        kinds=kinds,
        cells=cells,
        hidden=rng.standard_normal((count, WIDTH)),
        attention=raised / raised.sum(-1, keepdims=True),
        logits=logits,
        keys=rng.standard_normal((HEADS, count, KEYS)),
        sizes=rng.integers(1, 5, count),
        inputs=rng.standard_normal((count, WIDTH)),
        rotary=(np.cos(angles), np.sin(angles)),
        tower={
            **tails,
            "text_relevance": rng.uniform(-1, 1, count),
            "received": rng.uniform(size=(count, 4)),
            "keys": rng.standard_normal((count, KEYS)),
            "features": rng.standard_normal((count, FEATURES)),
            "last_keys": rng.standard_normal((count, KEYS)),
            "project": PROJECT,
            "norm": NORM,
        },
        layer=layer,
        layers=LAYERS,
    )


ATTENTIONS = ("cls_attention", "first_attention", "last_attention")
PER_TOKEN = (*ATTENTIONS, "text_relevance", "received", "keys", "features", "last_keys")
PROJECT = np.random.default_rng(0).standard_normal((FEATURES, WIDTH))
NORM = np.random.default_rng(1).uniform(0.5, 2, (1, WIDTH))


def _view(layout: TokenLayout, pictures: list[Picture], layer: int) -> LayerView:
    length = layout.length

    def stacked(parts: list[np.ndarray], axes: tuple[int, ...]) -> torch.Tensor:
        rows = []
        for part in parts:
            missing = length - part.shape[axes[0]]
            pad = [(missing if axis in axes else 0, 0) for axis in range(part.ndim)]
            rows.append(torch.from_numpy(np.pad(part, pad)))
        return torch.stack(rows)

    hidden = stacked([one.hidden for one in pictures], (0,))
    tower = {name: stacked([one.tower[name] for one in pictures], (0,)) for name in PER_TOKEN}
    project, norm = torch.from_numpy(PROJECT), torch.from_numpy(NORM)
    cos, sin = (stacked([one.rotary[n] for one in pictures], (0,)) for n in (0, 1))
    # Padding stands at position 0.
    cos[~layout.real] = 1.0
    return LayerView(
        layer=layer,
        layers=LAYERS,
        hidden=hidden,
        layout=layout,
        sizes=stacked([one.sizes for one in pictures], (0,)),
        attention=GivenAttention(
            stacked([one.attention for one in pictures], (1, 2)),
            stacked([one.logits for one in pictures], (1, 2)),
        ),
        keys=stacked([one.keys for one in pictures], (1,)),
        inputs=PromptInputs(stacked([one.inputs for one in pictures], (0,)), layout),
        rotary=(cos, sin),
        final_norm=lambda states: states * norm,
        vision=VisionFeatures(
            **tower,
            project=lambda states: states.double() @ project,
            tile=torch.where(layout.vision, layout.segment, -1),
        ),
    )


@pytest.mark.parametrize("name", REDUCERS)
def test_a_reducer_leaves_what_its_reference_leaves(name: str) -> None:
    compared = 0
    for number in range(DRAWS):
        stages = STAGES.get(name, (0,))
        layer = stages[number % len(stages)]
        most = 7 if name == "sparsevlm" and number % 5 == 0 else 4
        view, pictures = drawn(number, layer, most)
        reducer = built(name, layer)
        reducer.check_layout(view.layout)
        reduction = reducer.reduce(view)
        states = reducer.states(view, reduction)
        after = reduction.apply(view.hidden) if states is None else states
        for row, picture in enumerate(pictures):
            wanted = told(REDUCERS[name], picture)
            if wanted is None:
                continue
            kept, left = wanted
            valid, note = reduction.valid[row], (number, row)
            padding = view.layout.length - len(picture.kinds)
            assert (reduction.index[row, valid] - padding).tolist() == kept, note
            assert_close(after[row, valid].double().numpy(), left, 1e-5, note=note)
            compared += 1
    assert compared >= LEAST


@pytest.mark.parametrize("name", REDUCERS)
def test_a_reducer_runs_in_half_precision(name: str) -> None:
    view, _ = drawn(3, 0, 4)
    assert view.vision is not None
    weights = torch.from_numpy(PROJECT).bfloat16()
    halves = {name: getattr(view.vision, name).bfloat16() for name in PER_TOKEN}
    vision = dataclasses.replace(
        view.vision, **halves, project=lambda states: states.bfloat16() @ weights
    )
    keys = None if view.keys is None else view.keys.bfloat16()
    half = dataclasses.replace(view, hidden=view.hidden.bfloat16(), keys=keys, vision=vision)
    half = dataclasses.replace(half, final_norm=lambda states: states)
    reducer = built(name, 0)
    reduction = reducer.reduce(half)
    states = reducer.states(half, reduction)
    after = reduction.apply(half.hidden) if states is None else states
    assert after.dtype is torch.bfloat16 and bool(after[reduction.valid].isfinite().all())
