"""Layer views with random content for the tests of prefill methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightkv.contract.attention_sources import GivenAttention
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.view import LayerView


def row_layout(
    grids: Sequence[Grid], system: int = 2, between: int = 1, text: int = 3
) -> TokenLayout:
    """System text, images with text between them, then a question."""
    kinds = [TokenKind.SYSTEM] * system
    for number, grid in enumerate(grids):
        kinds += [TokenKind.TEXT] * (between if number else 0)
        kinds += [TokenKind.VISION] * grid.cells
    return single_layout([*kinds, *[TokenKind.TEXT] * text], grids)


def random_view(
    layout: TokenLayout,
    *,
    seed: int = 0,
    layer: int = 0,
    width: int = 6,
    heads: int = 2,
    dtype: torch.dtype = torch.float32,
    hidden: Tensor | None = None,
) -> LayerView:
    """A view of random hidden states and logits; a row of a batch has the values it has alone."""
    batch, length = layout.kind.shape
    states = torch.zeros(batch, length, width, dtype=dtype)
    logits = torch.zeros(batch, heads, length, length, dtype=dtype)
    for row in range(batch):
        count = int(layout.real[row].sum())
        generator = torch.Generator().manual_seed(seed * 100 + row)
        states[row, length - count :] = torch.randn(count, width, generator=generator, dtype=dtype)
        logits[row, :, length - count :, length - count :] = torch.randn(
            heads, count, count, generator=generator, dtype=dtype
        )
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    masked = logits.masked_fill(later | ~layout.real[:, None, None], -torch.inf)
    # A padding query sees nothing; its row is zero.
    causal = torch.softmax(masked, -1).nan_to_num(0)
    return LayerView(
        layer=layer,
        layers=layer + 10,
        hidden=states if hidden is None else hidden,
        layout=layout,
        sizes=torch.ones_like(layout.kind),
        attention=GivenAttention(attention=causal, raw=logits),
        keys=torch.zeros(batch, heads, length, 4),
        seed=seed,
    )


def row_of(view: LayerView, row: int) -> LayerView:
    """One row of a batch, alone and without padding."""
    real = view.layout.real[row]
    columns = {
        name: getattr(view.layout, name)[row : row + 1, real]
        for name in ("kind", "image", "segment", "frame", "row", "col", "position")
    }
    index = real.nonzero()[:, 0][None]
    everywhere = index.expand(view.layout.batch_size, -1)
    logits = view.read_attention().logits(everywhere)[row : row + 1]
    causal = view.read_attention().probabilities(everywhere)[row : row + 1]
    return LayerView(
        layer=view.layer,
        layers=view.layers,
        hidden=view.hidden[row : row + 1, real],
        layout=TokenLayout(grids=view.layout.grids[row : row + 1], **columns),
        sizes=view.sizes[row : row + 1, real],
        attention=GivenAttention(attention=causal[..., real], raw=logits[..., real]),
        keys=None if view.keys is None else view.keys[row : row + 1, :, real],
        seed=view.seed,
    )
