"""Rotary positions of tokens that follow a cache with fewer positions than the prompt had.

Where a reducer renumbered its survivors, later tokens go on from the last of them. In a re-indexed
cache (StreamingLLM, arXiv 2309.17453, Section 3.2) every entry sits at its place in the cache: keys
are cached rotated, so an entry that moves up is rotated back by as many positions as it moved. In
half precision each rotation rounds once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.rotary import Rotary, rotate
from lightkv.engine.cache import LayerEntries
from lightkv.errors import UnsupportedError

RotaryAt = Callable[[Tensor, int], Rotary]


class Renumbering:
    """Positions of new tokens, and of cached keys where the cache is re-indexed.

    Args:
        rotary: Cosine and sine (B, T, d) of positions (B, T) in a layer.
        places: True if cached keys sit at their places.
    """

    def __init__(self, rotary: RotaryAt, *, places: bool) -> None:
        self._rotary = rotary
        self._places = places

    def place(self, entries: LayerEntries, cached: Any, layer: int) -> None:
        """Rotate the keys of a layer's cache to the entries' places, if that is asked for.

        Raises:
            UnsupportedError: If heads hold different entries: a query has one position.
        """
        if not self._places:
            return
        if entries.groups > 1:
            raise UnsupportedError(
                "a re-indexed cache needs heads that hold the same entries; use a method that "
                "decides for all heads, or positions='keep'"
            )
        before = entries.position if entries.rotated is None else entries.rotated
        entries.rotated = entries.places()
        back = torch.where(entries.valid, before - entries.rotated, 0)[:, 0]
        cos, sin = self._rotary(back, layer)
        # Some models scale both; position 0 has the scale for its cosine.
        scale = self._rotary(torch.zeros_like(back[:1, :1]), layer)[0]
        cached.keys = rotate(cached.keys, (cos / scale)[:, None], (-sin / scale)[:, None])

    def embeddings(
        self,
        entries: LayerEntries,
        new: int,
        shortfall: Tensor | None,
        layer: int,
        stock: Rotary,
    ) -> Rotary:
        """Rotary embedding (B, T, d) of the newest T = ``new`` tokens of a layer.

        Args:
            entries: Of the layer, the new tokens included.
            new: Number of new tokens.
            shortfall: (B,) int64, positions that this layer's prompt was shortened by, or None.
            layer: 0-based.
            stock: The embedding that the model made, of the token's index in the conversation.
        """
        if entries.rotated is not None:
            positions = entries.rotated
        elif shortfall is not None:
            positions = entries.position - shortfall[:, None, None]
        else:
            return stock
        newest = positions[:, 0, entries.slots - new :].clamp_min(0)
        cos, sin = self._rotary(newest, layer)
        return cos.to(stock[0]), sin.to(stock[1])
