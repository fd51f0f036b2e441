"""Observers: they are shown layers of a prefill and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lightkv.contract.view import LayerView, ModelFacts


@runtime_checkable
class Observer(Protocol):
    """Looks at layers while a prompt is read.

    Derive from it and write :meth:`see`; the other two have defaults. Any object with the three
    methods will do. A view is shown as a compressor would see it, after earlier stages have
    shortened the sequence; its tensors are those of the run, so copy what is kept beyond the call
    of :meth:`see`, and change none.
    """

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        """Layers to look at; -1 is the input of the first. Default: all decoder layers."""
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        """Those of them whose attention is read (``view.read_attention()``). Default: none."""
        return ()

    def see(self, view: LayerView) -> None:
        """Look at one layer; called once per layer, in order."""
