"""Prompts and layers for eviction tests: given attention matrices, or random queries and keys."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightkv.contract.attention_sources import GivenAttention, ProjectedAttention
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.retention import Retention
from lightkv.contract.view import LayerView, ModelFacts

FACTS = ModelFacts(layers=3, heads=4, kv_heads=2, hidden_size=8)
WIDTH = 6


def kinds_of(text: str) -> list[int]:
    """One letter per token: s system, v vision, | separator, t text."""
    letters = {
        "s": TokenKind.SYSTEM,
        "v": TokenKind.VISION,
        "|": TokenKind.SEPARATOR,
        "t": TokenKind.TEXT,
    }
    return [int(letters[letter]) for letter in text]


def layout_of(text: str) -> TokenLayout:
    """Layout of one prompt given as letters; all its vision tokens are one image."""
    kinds = kinds_of(text)
    count = kinds.count(int(TokenKind.VISION))
    return single_layout(kinds, [Grid(1, 1, count)] if count else [])


def layer_of(text: str, attention: Sequence[Sequence[float]] | Tensor, layer: int = 0) -> LayerView:
    """A layer with a given attention matrix (N, N) of one head, or (H, N, N)."""
    layout = layout_of(text)
    matrix = torch.zeros(layout.length, layout.length)
    if isinstance(attention, Tensor):
        matrix = attention
    else:
        for query, row in enumerate(attention):
            matrix[query, : len(row)] = torch.tensor(row)
    heads = matrix if matrix.dim() == 3 else matrix[None]
    keys = torch.zeros(1, heads.shape[0], layout.length, 2)
    return LayerView(
        layer=layer,
        layers=1,
        hidden=torch.zeros(1, layout.length, 1),
        layout=layout,
        sizes=layout.real.long(),
        attention=GivenAttention(heads[None]),
        keys=keys,
        values=keys,
    )


def causal(text: str, seed: int = 0, heads: int = 2, sharpness: float = 1.0) -> LayerView:
    """A layer with random causal attention."""
    length = len(text)
    draw = torch.randn(heads, length, length, generator=torch.Generator().manual_seed(seed))
    later = torch.ones(length, length).triu(1).bool()
    return layer_of(text, torch.softmax((sharpness * draw).masked_fill(later, -torch.inf), -1))


class Rows:
    """Random prompts with random queries and keys, that can be laid out alone or as a batch."""

    def __init__(self, texts: Sequence[str], seed: int = 0, facts: ModelFacts = FACTS) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.facts = facts
        self.layouts = [layout_of(text) for text in texts]

        def states(heads: int, length: int) -> list[Tensor]:
            return [torch.randn(heads, length, WIDTH, generator=draw) for _ in range(facts.layers)]

        self.queries = [states(facts.heads, layout.length) for layout in self.layouts]
        self.keys = [states(facts.kv_heads, layout.length) for layout in self.layouts]
        self.values = [states(facts.kv_heads, layout.length) for layout in self.layouts]

    def views(self, rows: Sequence[int] | None = None, padding: int = 0) -> list[LayerView]:
        """The layers of some prompts as one left-padded batch, ``padding`` longer than needed."""
        rows = range(len(self.layouts)) if rows is None else rows
        layout = TokenLayout.stack([self.layouts[row] for row in rows])
        if padding:
            index = torch.cat([torch.zeros(padding).long(), torch.arange(layout.length)])
            valid = torch.arange(len(index)) >= padding
            index = index.expand(len(rows), -1)
            valid = valid.expand(len(rows), -1) & layout.real.gather(1, index)
            layout = layout.select(index, valid)
        length, real = layout.length, layout.real

        def stack(states: list[list[Tensor]], layer: int) -> Tensor:
            padded = [
                torch.nn.functional.pad(
                    states[row][layer], (0, 0, length - states[row][layer].shape[1], 0), value=9.0
                )
                for row in rows
            ]
            return torch.stack(padded)

        mask = torch.ones(length, length).tril().bool() & real[:, None, :] & real[:, :, None]
        views = []
        for layer in range(self.facts.layers):
            queries, keys = stack(self.queries, layer), stack(self.keys, layer)
            attention = ProjectedAttention(queries, keys, 0.7, mask[:, None])
            hidden = torch.zeros(len(rows), length, self.facts.hidden_size)
            values = stack(self.values, layer)
            view = LayerView(
                layer=layer,
                layers=self.facts.layers,
                hidden=hidden,
                layout=layout,
                sizes=real.long(),
                attention=attention,
                keys=keys,
                values=values,
            )
            views.append(view)
        return views


def kept(retention: Retention, row: int = 0, group: int = 0, padding: int = 0) -> list[int]:
    """Entries of one row that stay, in the row's own coordinates."""
    index = retention.index[row, group][retention.valid[row, group]]
    return (index - padding).tolist()
