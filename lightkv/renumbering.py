"""Re-indexed caches: every entry sits at its place in the cache, not at its place in the prompt.

StreamingLLM (arXiv 2309.17453, Section 3.2) rotates keys by their position within the cache. Here
keys are cached rotated, so an entry that moves up is turned back by as many positions as it moved.
In half precision each turn rounds once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightkv.cache import LayerEntries
from lightkv.errors import UnsupportedError

Rotary = tuple[Tensor, Tensor]
RotaryTable = Callable[[int], Rotary]


class Renumbering:
    """Keeps the rotary positions of a cache's entries equal to their places in the cache.

    Args:
        table: Gives cosine and sine (1, n, d) of the positions 0 to n - 1.
    """

    def __init__(self, table: RotaryTable) -> None:
        self._table = table
        self._known: Rotary | None = None

    def place(self, entries: LayerEntries, layer: Any) -> None:
        """Turn the keys of a layer's cache to the entries' places.

        Raises:
            UnsupportedError: If heads hold different entries: a query has one position.
        """
        if entries.position.shape[1] > 1:
            raise UnsupportedError(
                "a re-indexed cache needs heads that hold the same entries; use a method that "
                "decides for all heads, or keep positions"
            )
        before = entries.position if entries.rotated is None else entries.rotated
        entries.rotated = entries.places()
        back = torch.where(entries.valid, before - entries.rotated, 0)[:, 0]
        if bool(back.any()):
            cos, sin = self._rotary(int(back.max()) + 1)
            # The first row is position 0, whose cosine is the scale that some models put on both.
            scale = cos[:, :1]
            turn = (part[0][back][:, None] / scale for part in (cos, -sin))
            layer.keys = turned(layer.keys, *turn)

    def embeddings(self, entries: LayerEntries, new: int, like: Rotary) -> Rotary:
        """Rotary embedding (B, T, d) of the newest T = ``new`` tokens at their places."""
        if entries.rotated is None:
            return like
        places = entries.rotated[:, 0, entries.slots - new :]
        cos, sin = self._rotary(int(places.max()) + 1)
        return cos[0][places].to(like[0]), sin[0][places].to(like[1])

    def _rotary(self, length: int) -> Rotary:
        if self._known is None or self._known[0].shape[1] < length:
            with torch.no_grad():
                self._known = self._table(2 * length)
        return self._known


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn states (B, H, N, D) by angles of shape (B, 1, N, d), d <= D: the first d numbers.

    Number i is paired with number i + d / 2, as in all decoders that are supported.
    """
    width = cos.shape[-1]
    rotated = states[..., :width].float()
    half = torch.cat([-rotated[..., width // 2 :], rotated[..., : width // 2]], -1)
    result = rotated * cos.float() + half * sin.float()
    return torch.cat([result.to(states.dtype), states[..., width:]], -1)
