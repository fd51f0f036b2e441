"""What asking gives back: answers, and what a call of ``generate`` did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from torch import Tensor

from lightkv.engine.record import RunRecord
from lightkv.engine.run import Run
from lightkv.errors import UnsupportedError
from lightkv.kept_map import PicturePlace, kept_maps


@dataclass(frozen=True)
class Answer:
    """What a model said, and what its cache held while it said it.

    Attributes:
        text: The answer, without special tokens.
        tokens: Ids of the generated tokens up to the end-of-sequence token.
        record: What the run did.
        places: Gives where the tokens of each picture lie on it; None where the request is unknown.
    """

    text: str
    tokens: tuple[int, ...]
    record: RunRecord
    places: Callable[[], Sequence[PicturePlace]] | None = field(
        default=None, repr=False, compare=False
    )

    def __repr__(self) -> str:
        return f"answer     {self.text!r}\n{self.record!r}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p>{self.record._repr_html_()}"

    @property
    def kept(self) -> dict[str, list[Any]]:
        """Original prompt positions in each layer's cache, by "layer 0", "layer 1", ..."""
        return {f"layer {layer.layer}": layer.kept.tolist() for layer in self.record.layers}

    def kept_map(self, layer: int) -> list[Tensor]:
        """What a layer's cache holds, on the pictures.

        Args:
            layer: 0-based decoder layer.

        Returns:
            Per picture, then per video, (height, width) float32 from 0 to 1: the share of KV heads
            that hold an entry for what a pixel shows; see :func:`lightkv.kept_map.kept_maps`.

        Raises:
            InvalidValueError: If there is no such layer.
            UnsupportedError: If it is not known where tokens lie on the pictures.
        """
        if self.places is None:
            raise UnsupportedError(
                "this answer was built without its request, so its pictures are unknown; use one "
                "that vlm.ask, vlm.ask_many or a session gave"
            )
        return kept_maps(self.record, layer, self.places())

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache's entries after prefill."""
        return self.record.kv_bytes


@dataclass(frozen=True)
class Generation:
    """Output of :meth:`lightkv.VLM.generate`.

    Attributes:
        output: What ``model.generate`` returned, unchanged.
        records: One record per row of the batch, made when the first is read.
        run: The run with its cache, if it was asked for.
    """

    output: Any
    records: Sequence[RunRecord]
    run: Run | None = None
