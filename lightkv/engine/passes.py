"""What happens at each place of a model's forward passes while a run is active.

This is the definition of the intervention graph.  It knows neither nnsight nor hooks: a driver
(:mod:`lightkv.engine.traces`, :mod:`lightkv.engine.hooks`) reads the places that it is told to
read, hands in their values in the order of the pass, and puts back what comes out.

* Prefill: the input of a layer is replaced by the shortened sequence where an earlier stage reduced
  it; queries, keys and the layer's output are handed to those who asked for them. A reducer that
  looks ahead decides at the input of the next layer, by the attention that this would compute.
* After the last layer the cache is cut to what the run retains.
* While decoding, every layer attends through a mask of its own length, and decode policies evict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lightkv.contract.attention_sources import ProjectedAttention, newest_attention
from lightkv.contract.rotary import Rotary
from lightkv.engine.run import Run

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

#: The attention that a layer would compute from these arguments; nothing is stored.
Peek = Callable[[tuple[Any, ...], dict[str, Any]], ProjectedAttention]


class Passes:
    """The passes of one run: the first is its prefill, all others join its cache.

    The places of a pass are the decoder's input and, layer by layer, the layer's input, the call of
    its attention kernel, and its output. What a method returns is the very object that it was given
    where nothing changes.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan = run.plan
        self._last = run.plan.facts.layers - 1
        self._attention: ProjectedAttention | None = None
        self._rotary: Rotary | None = None
        self._newest: Tensor | None = None

    # ------------------------------------------------------------------ what has to be read

    @property
    def prefilled(self) -> bool:
        """True once the next pass is a decode step."""
        return self._run.prefilled

    @property
    def done(self) -> bool:
        """True once no later pass needs anything."""
        return self.prefilled and self._run.held.is_plain

    @property
    def reads_decoder(self) -> bool:
        """True if the decoder itself adds something to its layers that may have to be cut."""
        return self._run.quirks.adds_to_layers and not self.prefilled

    def reads_input(self, layer: int) -> bool:
        """True if a layer's input is read."""
        if self.prefilled:
            return not self._run.held.is_plain
        stage = self._plan.first_stage
        shortened = stage is not None and layer > stage
        wanted = layer in self._plan.rotary | self._plan.two_way or bool(
            self._plan.intervening(layer)
        )
        return layer == 0 or shortened or wanted

    def reads_kernel(self, layer: int) -> bool:
        """True if the call of a layer's attention kernel is read."""
        if self.prefilled:
            return self._plan.decode_policy.needs_attention
        return layer in self._plan.attention or self._plan.patches(layer)

    def reads_output(self, layer: int) -> bool:
        """True if a layer's output is read."""
        if self.prefilled:
            return not self._plan.decode_policy.static
        return layer == self._last or layer in self._plan.views or self._may_add_after(layer)

    # ------------------------------------------------------------------ what comes out

    def decoder_input(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the decoder."""
        return self._run.enter(kwargs)

    def layer_input(
        self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], peek: Peek
    ) -> Inputs:
        """Arguments of a layer.

        Args:
            layer: 0-based.
            args: The first are its hidden states (B, N, D).
            kwargs: By name.
            peek: Gives the layer's own attention before it runs.
        """
        if self.prefilled:
            if layer == 0:
                self._run.held.next_tokens(args[0].shape[1])
            return args, self._run.held.inputs(layer, kwargs)
        if layer == 0:
            self._run.begin(args[0], kwargs)
        prefill = self._run.prefill
        cut, settings = prefill.shorten(args, kwargs)
        if self._plan.reducer_before(layer) is not None:
            prefill.look_ahead(layer, cut[0], peek(cut, settings))
            cut, settings = prefill.shorten(cut, kwargs)
        wanted = layer in self._plan.rotary
        self._rotary = settings.get("position_embeddings") if wanted else None
        if layer in self._plan.two_way:
            settings = prefill.two_way(settings)
        return cut, prefill.intervene(layer, settings)

    def kernel_input(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scaling: float,
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H_kv, N, d) that a layer attends to.

        Args:
            layer: 0-based.
            queries: (B, H, T, d), after rotary embedding.
            keys: (B, H_kv, N, d) as the cache holds them, the newest included.
            values: Likewise.
            mask: What the kernel is called with.
            scaling: Factor of the logits.
        """
        if self.prefilled:
            self._newest = newest_attention(queries, keys, scaling, mask)
            return keys, values
        keys, values = self._run.prefill.patch(layer, keys, values)
        self._attention = ProjectedAttention(queries, keys, scaling, mask)
        return keys, values

    def layer_output(self, layer: int, output: Tensor) -> Tensor:
        """A layer's output (B, N, D)."""
        if self.prefilled:
            self._run.held.evict(layer, self._newest)
            self._newest = None
            return output
        prefill = self._run.prefill
        hidden = prefill.with_additions(layer, output)
        if layer in self._plan.views:
            prefill.see(layer, hidden, self._attention, self._rotary)
        self._attention = self._rotary = None
        # Up to the first stage the decoder itself adds what was shown.
        adds = prefill.adds_after(layer)
        if layer == self._last:
            self._run.finish()
        return hidden if adds else output

    def _may_add_after(self, layer: int) -> bool:
        """True if the layer is one after which the decoder may no longer add what it adds."""
        stage = self._plan.first_stage
        return self._run.quirks.adds_to_layers and stage is not None and layer > stage
