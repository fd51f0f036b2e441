"""The hooks driver: a run's passes as plain functions around the modules, only where one is asked.

A hook stands where nnsight's controller would stand, in the place of a module's ``forward``: inside
whatever torch hooks a user or transformers has registered, so that these see the same under both
drivers.  Queries and keys after rotary embedding come through transformers' attention interface: an
attention module that is listened to gets a config of its own, whose kernel is a tap that hands them
over and then calls the kernel that the module would have called.  Masks, vision tower and every
other module read the model's config, which stays as it is.

Once decoding needs nothing the hooks are gone, within the same call of ``generate``.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from torch import Tensor, nn

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.engine.passes import Inputs, Passes
from lightkv.errors import UnsupportedError

# The tap's name in the attention interface, and among the attributes of modules listened to.
_NAME = "lightkv_tap"

Listener = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], tuple[Tensor, Tensor]]
Before = Callable[[tuple[Any, ...], dict[str, Any]], Inputs]
After = Callable[[Tensor], Tensor]


class Hooks:
    """A decoder that runs are carried through by hooks.

    Args:
        decoder: The module that owns ``layers``, left as it was after each call.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder = decoder

    def call(self, passes: Passes, function: Callable[..., Any], **settings: Any) -> Any:
        """A function that calls the model, with the passes carried out."""
        with ExitStack() as hooks:
            _attach(self._decoder, passes, hooks)
            return function(**settings)


def _attach(decoder: Any, passes: Passes, hooks: ExitStack) -> None:
    """Hook whatever the passes from the next one on are read at."""
    if passes.done:
        return
    stands = _Stands()
    if passes.reads_decoder:
        hooks.enter_context(
            Hook(decoder, lambda args, kwargs: (args, passes.decoder_input(kwargs)), None)
        )
    for number, layer in enumerate(decoder.layers):
        before: Before | None = None
        after: After | None = None
        if passes.reads_input(number):
            before = functools.partial(_before, number, layer, passes)
        if passes.reads_output(number):
            after = functools.partial(_after, number, decoder, passes, hooks)
        if before is not None or after is not None:
            hooks.enter_context(Hook(layer, before, after))
        if passes.reads_kernel(number):
            listener = functools.partial(passes.kernel_input, number)
            hooks.enter_context(_Tap(layer.self_attn, stands, listener))


def _before(
    number: int, layer: nn.Module, passes: Passes, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Inputs:
    return passes.layer_input(number, args, kwargs, functools.partial(peek, layer))


def peek(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProjectedAttention:
    """The attention that a decoder layer would compute from these arguments; nothing is stored.

    The layer is run up to the call of its kernel.

    Raises:
        UnsupportedError: If it calls no kernel of transformers' attention interface.
    """
    seen: list[ProjectedAttention] = []

    def listen(
        queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float
    ) -> tuple[Tensor, Tensor]:
        seen.append(ProjectedAttention(queries, keys, scaling, mask))
        raise _SeenEnough

    with _Tap(layer.self_attn, _Stands(), listen), suppress(_SeenEnough):
        type(layer).forward(layer, *args, **{**kwargs, "past_key_values": None})
    if not seen:
        raise UnsupportedError(f"{type(layer).__name__} does not show the attention to come")
    return seen[0]


class _SeenEnough(Exception):
    """Ends a layer's forward pass at its kernel."""


def _after(
    number: int, decoder: nn.Module, passes: Passes, hooks: ExitStack, output: Tensor
) -> Tensor:
    reading = not passes.prefilled
    output = passes.layer_output(number, output)
    if reading and passes.prefilled:
        hooks.close()
        _attach(decoder, passes, hooks)
    return output


class Standin:
    """Stands in the place of a module's ``forward`` while entered.

    Args:
        module: The module.
    """

    _forward: Callable[..., Any]

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._there: dict[str, Any] = {}

    def __enter__(self) -> None:
        # As accelerate and nnsight do, on the instance; the class stays as it is.
        self._there = {name: f for name, f in vars(self._module).items() if name == "forward"}
        self._forward = self._module.forward
        functools.update_wrapper(self, self._forward)  # type: ignore[arg-type]  # it is called
        vars(self._module)["forward"] = self

    def __exit__(self, *_: object) -> None:
        del vars(self._module)["forward"]
        vars(self._module).update(self._there)


class Hook(Standin):
    """Functions before and after a module's ``forward``.

    Args:
        module: The module.
        before: Gives the arguments that the module is called with.
        after: Gives the output in place of the module's.
    """

    def __init__(self, module: nn.Module, before: Before | None, after: After | None) -> None:
        super().__init__(module)
        self._before = before
        self._after = after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._before is not None:
            args, kwargs = self._before(args, kwargs)
        output = self._forward(*args, **kwargs)
        return output if self._after is None else self._after(output)


class _Stands:
    """What modules that share a config are given while they are listened to, made once for all."""

    def __init__(self) -> None:
        # By the number of the config, which is held so that its number stays its own.
        self._configs: dict[int, tuple[Any, Any]] = {}
        self._kernels: dict[tuple[int, type], Any] = {}

    def config(self, plain: Any) -> Any:
        """A config whose kernel is the tap."""
        if id(plain) not in self._configs:
            tapped = copy.copy(plain)
            # Past the property of that name, which would change the configs inside as well.
            vars(tapped)["_attn_implementation_internal"] = _NAME
            self._configs[id(plain)] = plain, tapped
        return self._configs[id(plain)][1]

    def kernel(self, module: nn.Module, plain: Any) -> Any:
        """The kernel that a module calls under its own config."""
        kind = type(module)
        if (id(plain), kind) not in self._kernels:
            # Eager attention is not an entry of the interface but a function of the model's file.
            names = inspect.unwrap(kind.forward).__globals__
            known, eager = names["ALL_ATTENTION_FUNCTIONS"], names.get("eager_attention_forward")
            kernel = known.get_interface(plain._attn_implementation, eager)
            self._kernels[id(plain), kind] = kernel
        return self._kernels[id(plain), kind]


class _Tap:
    """Listens to an attention module's call of its kernel while entered."""

    def __init__(self, module: nn.Module, stands: _Stands, listener: Listener) -> None:
        self._module = module
        self._stands = stands
        self._listener = listener
        self._config = module.config
        self._outer = vars(module).get(_NAME)

    def __enter__(self) -> None:
        _register()
        # Past torch, which looks at each attribute for a parameter.
        vars(self._module).update({"config": self._stands.config(self._config), _NAME: self})

    def __exit__(self, *_: object) -> None:
        vars(self._module).update({"config": self._config, _NAME: self._outer})
        if self._outer is None:
            del vars(self._module)[_NAME]

    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        *rest: Any,
        **settings: Any,
    ) -> Any:
        """Tell the listener, then call the kernel that the module would have called."""
        keys, values = self._listener(queries, keys, values, mask, settings["scaling"])
        kernel = self._stands.kernel(self._module, self._config)
        return kernel(self._module, queries, keys, values, mask, *rest, **settings)


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _tapped)


def _tapped(module: Any, *args: Any, **settings: Any) -> Any:
    return vars(module)[_NAME](*args, **settings)
