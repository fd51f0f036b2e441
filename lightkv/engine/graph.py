"""The one intervention graph: observe, shorten, evict, decode, on an unmodified model.

Everything enters through a single nnsight edit.  Its body asks, layer by layer, what the current
run wants (:class:`~lightkv.engine.run.Run`) and knows no method:

* prefill: the input of a layer is replaced by the shortened sequence where an earlier stage
  reduced it; queries, keys and the layer's output are handed to whoever asked for them;
* after the last layer the cache is cut to what the run retains;
* while decoding, every layer attends through a mask of its own length, and decode policies evict.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from nnsight import NNsight

from lightkv.contract.attention import ProjectedAttention, newest_attention
from lightkv.engine.run import Run

# The call of the attention kernel inside a decoder layer's self-attention, as nnsight names it.
ATTENTION_CALL = "attention_interface_1"


class InterventionGraph:
    """A model with the edit attached; runs are passed in one at a time.

    Args:
        model: A HuggingFace model, left unmodified.
        decoder_path: Dotted path of its text decoder.
    """

    def __init__(self, model: torch.nn.Module, decoder_path: str) -> None:
        self._model = model
        self._pending: list[Run] = []
        self._edited = _attach(NNsight(model), decoder_path, self._pending)

    def generate(self, run: Run, inputs: dict[str, Any], **settings: Any) -> Any:
        """``model.generate`` under the run's interventions; returns what it returns."""
        return self.call(run, self._model.generate, **inputs, **settings)

    def call(self, run: Run, function: Any, **settings: Any) -> Any:
        """Any function that calls the model, under the run's interventions.

        The first forward pass of a run is its prefill, all others join its cache.
        """
        self._pending[:] = [run]
        with warnings.catch_warnings():
            # Generation ends before an open iteration does; that is its normal end here.
            warnings.filterwarnings("ignore", message=".*was never reached.*")
            return self._edited.trace(fn=function, trace=False, **settings)


def _attach(model: Any, decoder_path: str, pending: list[Run]) -> Any:
    with model.edit() as (tracer, edited):
        decoder = edited.get(decoder_path)
        # A run arrives with every call: what is read outside the loop would be shared by replays.
        for _ in tracer.iter[:]:
            if pending[0].prefilled:
                _decode(decoder, pending[0])
            else:
                _prefill(decoder, pending[0])
    return edited


def _prefill(decoder: Any, run: Run) -> None:
    if run.needs_decoder_inputs:
        args, kwargs = decoder.inputs
        decoder.inputs = (args, run.enter(kwargs))
    for number, layer in enumerate(decoder.layers):
        args, kwargs = layer.inputs
        if number == 0:
            run.begin(args[0], kwargs)
        if run.shortened:
            args, kwargs = run.shorten(args, kwargs)
            layer.inputs = (args, kwargs)
        if run.intervenes(number):
            layer.inputs = (args, run.intervene(number, kwargs))
        needs = run.needs(number)
        attention = None
        if needs.attention or run.patches(number):
            call = getattr(layer.self_attn.source, ATTENTION_CALL)
            (module, queries, keys, values, mask, *rest), settings = call.inputs
            if run.patches(number):
                keys, values = run.patch(number, keys, values)
                call.inputs = ((module, queries, keys, values, mask, *rest), settings)
            attention = ProjectedAttention(queries, keys, settings["scaling"], mask)
        if needs.view or run.adds_behind(number):
            hidden = run.with_additions(number, layer.output)
            if run.adds_behind(number):
                layer.output = hidden
            if needs.view:
                run.see(number, hidden, attention)
    run.finish_prefill()


def _decode(decoder: Any, run: Run) -> None:
    held, policy = run.held, run.plan.decode_policy
    if held.is_plain:
        # Every step has to ask for something, or the iteration would not end with generation.
        args, _ = decoder.layers[0].inputs
        held.next_tokens(args[0].shape[1])
        return
    for number, layer in enumerate(decoder.layers):
        args, kwargs = layer.inputs
        if number == 0:
            held.next_tokens(args[0].shape[1])
        layer.inputs = (args, held.inputs(number, kwargs))
        if policy.static:
            continue
        attention = None
        if policy.needs_attention:
            call = getattr(layer.self_attn.source, ATTENTION_CALL)
            (_, queries, keys, _, mask, *_), settings = call.inputs
            attention = newest_attention(queries, keys, settings["scaling"], mask)
        _ = layer.output
        held.evict(number, attention)
