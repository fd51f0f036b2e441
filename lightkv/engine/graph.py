"""The one intervention graph: observe, shorten, evict, decode, on an unmodified model.

What the graph does is written down once, in :mod:`lightkv.engine.passes`. Two drivers carry it
out, bit for bit alike: nnsight traces, into which a user's own interventions fit, and torch hooks,
which cost nothing where nothing is asked.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from lightkv.contract.types import check_type
from lightkv.engine.drivers import Driver
from lightkv.engine.hooks import Hooks
from lightkv.engine.passes import Passes
from lightkv.engine.run import Run
from lightkv.errors import UnsupportedError

if TYPE_CHECKING:
    from lightkv.engine.compiled import CompiledDecoding
    from lightkv.engine.traces import Traces

# Decoders that a run is being carried through.
_BUSY: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class InterventionGraph:
    """A model that runs can be carried through, one at a time.

    Args:
        model: A HuggingFace model, left unmodified between calls.
        decoder_path: Dotted path of its text decoder.
    """

    def __init__(self, model: Any, decoder_path: str) -> None:
        self._model = model
        self._decoder: nn.Module = model.get_submodule(decoder_path)
        self._hooks = Hooks(self._decoder)
        self._traces: Traces | None = None
        self._compiled: CompiledDecoding | None = None

    def generate(
        self, run: Run, inputs: dict[str, Any], *, driver: Driver = "auto", **settings: Any
    ) -> Any:
        """``model.generate`` under the run's interventions; returns what it returns."""
        return self.call(run, self._model.generate, driver=driver, **inputs, **settings)

    def generate_compiled(
        self, run: Run, inputs: dict[str, Any], new_tokens: int, **settings: Any
    ) -> Any:
        """``model.generate`` with the prefill under hooks, and compiled decode steps.

        Args:
            run: Nothing in it acts on decode steps.
            inputs: Of the model.
            new_tokens: Most tokens that are generated.
            **settings: Of ``generate``.

        Raises:
            UnsupportedError: If another run is being carried through this model, the call stands in
                a trace, or the model's decode step can't be compiled.
        """
        if self._is_traced("auto"):
            raise UnsupportedError(
                "decode='compiled' inside a trace of your own: compiled steps show it nothing; "
                "leave decode out"
            )
        with self._alone():
            if self._compiled is None:
                # Imports of transformers' caches and of the compiler only where they are needed.
                from lightkv.engine.compiled import CompiledDecoding

                self._compiled = CompiledDecoding(self._model, self._decoder)
            return self._compiled.generate(run, new_tokens, **inputs, **settings)

    def call(
        self, run: Run, function: Callable[..., Any], *, driver: Driver = "auto", **settings: Any
    ) -> Any:
        """Any function that calls the model, under the run's interventions.

        The first forward pass of a run is its prefill, all others join its cache.

        Raises:
            InvalidValueError: If there is no such driver.
            UnsupportedError: If another run is being carried through this model, or the call stands
                in the body of a trace.
        """
        check_type("driver", driver, Driver)
        with self._alone():
            carrier = self._driver(run, "hooks" if self._is_traced(driver) else driver)
            return carrier.call(Passes(run), function, **settings)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other run meanwhile.

        Raises:
            UnsupportedError: If one is being carried through this model.
        """
        if self._decoder in _BUSY:
            raise UnsupportedError("another run is active on this model; one after the other")
        _BUSY.add(self._decoder)
        try:
            yield
        finally:
            _BUSY.discard(self._decoder)

    def _is_traced(self, driver: Driver) -> bool:
        """Whether a trace of the user's own is running on the decoder now."""
        if "nnsight" not in sys.modules:
            return False
        from lightkv.engine.traces import in_a_body, is_traced

        if not is_traced(self._decoder):
            return False
        if in_a_body():
            raise UnsupportedError(
                "a compressed generation in the body of a trace: the model is running already. "
                "Make it what the trace runs: NNsight(vlm.model).trace(fn=quick.generate, **inputs)"
            )
        if driver == "nnsight":
            raise UnsupportedError(
                "driver='nnsight' inside a trace of your own: the two would take each other's "
                "values; leave driver out, or say 'hooks'"
            )
        return True

    def _driver(self, run: Run, driver: Driver) -> Hooks | Traces:
        watched = bool(run.plan.observers or run.plan.interventions)
        if driver == "hooks" or (driver == "auto" and not watched):
            return self._hooks
        if self._traces is None:
            # nnsight is imported, and wraps a model, only where it is needed.
            from lightkv.engine.traces import Traces

            self._traces = Traces(self._decoder)
        return self._traces
