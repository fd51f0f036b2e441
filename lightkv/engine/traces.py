"""The nnsight driver: a run's passes as one trace.  The only file that speaks nnsight.

Everything enters through a single edit of the decoder, which asks, layer by layer, what the
current run wants (:class:`~lightkv.engine.passes.Passes`) and knows no method.  nnsight puts a
controller in the place of every module's ``forward`` and leaves it there, and a slower ``forward``
where it was asked for the calls inside; here both are in place only while a run is active.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import greenlet
from nnsight import NNsight
from nnsight.intervention.source import STATE
from torch import nn

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.engine.hooks import peek
from lightkv.engine.passes import Passes, Peek

# The call of the attention kernel inside a decoder layer's self-attention, as nnsight names it.
ATTENTION_CALL = "attention_interface_1"


def is_traced(decoder: nn.Module) -> bool:
    """Whether a trace is running on some module of a decoder.

    Every run of the hooks asks this, so the modules are walked directly: ``modules()`` is slower.
    """
    modules = [decoder]
    for module in modules:  # grows meanwhile, until no module has children left
        modules += [child for child in module._modules.values() if child is not None]
    states = [module.__dict__[STATE] for module in modules if STATE in module.__dict__]
    return any(state.active()[0] is not None for state in states)


def in_a_body() -> bool:
    """Whether the caller runs in the body of a trace, while the model waits for it."""
    return greenlet.getcurrent().parent is not None


class Traces:
    """A decoder with the edit attached; runs are passed in one at a time.

    Args:
        decoder: The module that owns ``layers``, left as it was between calls.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._wrappers = _Wrappers(decoder)
        self._pending: list[Passes] = []
        with self._wrappers.in_place():
            self._edited = _attach(NNsight(decoder), self._pending)

    def call(self, passes: Passes, function: Callable[..., Any], **settings: Any) -> Any:
        """A function that calls the model, with the passes carried out."""
        self._pending[:] = [passes]
        with self._wrappers.in_place(), warnings.catch_warnings():
            # Generation ends before an open iteration does; that is its normal end here.
            warnings.filterwarnings("ignore", message=".*was never reached.*")
            try:
                return self._edited.trace(fn=function, trace=False, **settings)
            finally:
                self._pending.clear()


def _attach(decoder: Any, pending: list[Passes]) -> Any:
    with decoder.edit() as (tracer, edited):
        # A run arrives with every call: what is read outside the loop would be shared by replays.
        for _ in tracer.iter[:]:
            _pass(edited, pending[0])
    return edited


def _pass(decoder: Any, passes: Passes) -> None:
    """One forward pass of the decoder."""
    if passes.done:
        # Every pass has to ask for something, or the iteration would not end with generation.
        _ = decoder.layers[0].inputs
        return
    if passes.reads_decoder:
        args, kwargs = decoder.inputs
        decoder.inputs = (args, passes.decoder_input(kwargs))
    for number, layer in enumerate(decoder.layers):
        if passes.reads_input(number):
            args, kwargs = layer.inputs
            layer.inputs = passes.layer_input(number, args, kwargs, _peek(layer))
        if passes.reads_kernel(number):
            _kernel(number, layer.self_attn.source, passes)
        if passes.reads_output(number):
            output = layer.output
            changed = passes.layer_output(number, output)
            if changed is not output:
                layer.output = changed


def _kernel(number: int, source: Any, passes: Passes) -> None:
    """The call of a layer's attention kernel."""
    call = getattr(source, ATTENTION_CALL)
    (module, queries, keys, values, mask, *rest), settings = call.inputs
    swapped = passes.kernel_input(number, queries, keys, values, mask, settings["scaling"])
    if swapped[0] is not keys:
        call.inputs = ((module, queries, *swapped, mask, *rest), settings)


def _peek(layer: Any) -> Peek:
    """At the attention of a layer, past nnsight: for it the layer has not run yet."""
    module = layer._module

    def look(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProjectedAttention:
        inside = list(module.modules())
        there = [_swapped(one, _bare(one)) for one in inside]
        try:
            return peek(module, args, kwargs)
        finally:
            for one, entries in zip(inside, there, strict=True):
                _swapped(one, entries)

    return look


class _Wrappers:
    """What nnsight leaves on the modules of a decoder: in place during a call, else put away."""

    def __init__(self, decoder: nn.Module) -> None:
        self._modules = list(decoder.modules())
        self._kept: list[dict[str, Any]] = [_bare(module) for module in self._modules]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put our wrappers in the place of what is there, and put that back afterwards."""
        there = [_swapped(module, {}) for module in self._modules]
        for module, kept in zip(self._modules, self._kept, strict=True):
            _swapped(module, kept)
        try:
            yield
        finally:
            parts = zip(self._modules, there, strict=True)
            self._kept = [_swapped(module, before) for module, before in parts]


_NAMES = ("forward", STATE)


def _swapped(module: nn.Module, entries: dict[str, Any]) -> dict[str, Any]:
    """Put entries in the place of a module's own; returns those."""
    attributes = module.__dict__
    before = {name: attributes.pop(name) for name in _NAMES if name in attributes}
    attributes.update(entries)
    return before


def _bare(module: nn.Module) -> dict[str, Any]:
    """The entries that a module would have if nnsight had never wrapped it."""
    attributes = module.__dict__
    state = attributes.get(STATE)
    if state is None:
        return {"forward": attributes["forward"]} if "forward" in attributes else {}
    if state.original is type(module).forward:
        return {}
    return {"forward": functools.partial(state.original, module)}
