"""What asking gives back: answers, and what a call of ``generate`` did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lightkv.engine.record import RunRecord
from lightkv.engine.run import Run


@dataclass(frozen=True)
class Answer:
    """What a model said, and what its cache held while it said it.

    Attributes:
        text: The answer, without special tokens.
        tokens: Ids of the generated tokens up to the end-of-sequence token.
        record: What the run did.
    """

    text: str
    tokens: tuple[int, ...]
    record: RunRecord

    def __repr__(self) -> str:
        return f"answer     {self.text!r}\n{self.record!r}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p>{self.record._repr_html_()}"

    @property
    def kept(self) -> dict[str, list[Any]]:
        """Original prompt positions in each layer's cache, by "layer 0", "layer 1", ..."""
        return {f"layer {layer.layer}": layer.kept.tolist() for layer in self.record.layers}

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
