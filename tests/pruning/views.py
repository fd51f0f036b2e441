"""Views at the input of the decoder, with what a vision tower would know."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import LayerView, ModelFacts, VisionFeatures
from tests.merging.views import random_view, row_layout, row_of


def circle(*degrees: float) -> Tensor:
    """(M, 2) unit vectors."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], -1)


def in_vision(layout: TokenLayout, values: Tensor) -> Tensor:
    """(1, N, ...) values at the vision tokens, zero elsewhere."""
    out = torch.zeros(layout.length, *values.shape[1:], dtype=values.dtype)
    out[layout.vision[0]] = values
    return out[None]


def before(
    grids: Sequence[Grid],
    hidden: Tensor | None = None,
    system: int = 1,
    text: int = 2,
    **vision: Tensor,
) -> LayerView:
    """A view at layer -1 of one row: hidden states and vision features per vision token."""
    layout = row_layout(grids, system=system, text=text)
    view = random_view(layout, layer=-1)
    if hidden is not None:
        view = dataclasses.replace(view, hidden=in_vision(layout, hidden))
    features = {name: in_vision(layout, values) for name, values in vision.items()}
    seen = VisionFeatures(**{"tile": layout.image, **features})
    return dataclasses.replace(view, vision=seen, attention=None, keys=None)


def random_before(layout: TokenLayout, seed: int = 0) -> LayerView:
    """A batch at layer -1 with random vision features; a row has the values it has alone."""
    view = random_view(layout, seed=seed, layer=-1, width=12)
    features = view.hidden.abs() * layout.vision[..., None]
    vision = VisionFeatures(
        cls_attention=features[..., 0],
        first_attention=features[..., 1],
        keys=features[..., 2:6],
        features=features[..., 6:10],
        text_relevance=features[..., 10],
        received=features[..., 2:6],
        last_attention=features[..., 11],
        last_keys=features[..., 3:8],
        project=lambda states: states.repeat_interleave(3, -1),
        tile=torch.where(layout.vision, layout.segment, -1),
    )
    return dataclasses.replace(view, vision=vision)


def alone(view: LayerView, row: int) -> LayerView:
    """One row of a batch without padding, with its vision features."""
    single = row_of(view, row)
    if view.vision is None:
        return single
    real = view.layout.real[row]
    values = {f.name: getattr(view.vision, f.name) for f in dataclasses.fields(view.vision)}
    cut = {n: v[row : row + 1, real] for n, v in values.items() if isinstance(v, Tensor)}
    return dataclasses.replace(single, vision=dataclasses.replace(view.vision, **cut))


def with_rows(layout: TokenLayout, attention: Tensor, layer: int) -> LayerView:
    """A view whose causal attention is given as (N, N), one head."""
    view = random_view(layout, layer=layer, heads=1)
    return dataclasses.replace(view, attention=GivenAttention(attention=attention[None, None]))


FACTS = ModelFacts(layers=8, heads=4, kv_heads=4, hidden_size=12)


def tiled(layout: TokenLayout) -> TokenLayout:
    """The same layout with all grids of a row belonging to one image."""
    return dataclasses.replace(layout, image=layout.image.clamp_max(0))


def kept_vision(index: torch.Tensor, first: int) -> list[int]:
    return [n - first for n in index[0].tolist()]
