"""Compiled decoding: every step is one program, over a buffer of its own length in each layer.

The prompt is read under the hooks driver. Then each layer's entries move into a buffer of its own
length, with room for the answer, and every later call of the model runs as one compiled program
without a break: the stock model's ``forward``, in which each layer attends through the mask of its
own buffer. ``generate`` itself stays transformers', with its processors, criteria and streamers.

A mask always exists here, which selects another attention kernel than a plain step: logits equal
those of eager decoding up to rounding, not bit for bit.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.compiler import config
from transformers import Cache
from transformers.cache_utils import StaticLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from lightkv.engine.held import HeldCache
from lightkv.engine.hooks import Hook, Hooks, Standin
from lightkv.engine.passes import Inputs, Passes
from lightkv.engine.run import Run
from lightkv.errors import UnsupportedError

SLOTS: Final = 64
"""Buffers hold a multiple of this, so that prompts of nearly one length share a program."""

KEPT_PROGRAMS: Final = 8
"""Programs that a model keeps; of more, the one that was used longest ago is compiled again."""

BACKEND = "inductor"
"""What compiles, a backend of ``torch.compile``."""

#: Shapes of a layer's keys and of its mask, layer by layer.
Shapes = tuple[tuple[torch.Size, torch.Size], ...]


class StaticEntries(StaticLayer):  # type: ignore[no-untyped-call]  # transformers' own
    """A layer's entries at the start of a buffer, in which later tokens take the next slots.

    Args:
        keys: (B, H_kv, K, d), what is held.
        values: Likewise.
        mask: (B, 1 or H, 1, S), what a token sees of the S slots; those after the first K are free.
    """

    # Otherwise ``generate`` makes one mask for all layers at every step.
    is_compileable = False
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, mask: Tensor) -> None:
        super().__init__(mask.shape[-1])
        self.dtype, self.device = keys.dtype, keys.device
        # Not marked as static addresses: what is compiled would hold for these buffers alone.
        self.keys, self.values = self._buffer(keys), self._buffer(values)
        self.cumulative_length = torch.tensor(keys.shape[2], device=keys.device)
        self.mask = mask
        self.is_initialized = True

    def _buffer(self, held: Tensor) -> Tensor:
        free = self.max_cache_len - held.shape[2]
        return torch.nn.functional.pad(held, (0, 0, 0, free))

    def first(self, slots: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H_kv, ``slots``, d) at the start of the buffers, not copied."""
        return self.keys[:, :, :slots], self.values[:, :, :slots]

    def next_mask(self) -> Tensor:
        """(B, 1 or H, 1, S), with the slot of the token that joins now."""
        seen = True if self.mask.dtype == torch.bool else 0.0
        return self.mask.index_fill_(3, self.cumulative_length[None], seen)


class CompiledDecoding:
    """A model whose decode steps run compiled, with the programs that were compiled last.

    Args:
        model: A HuggingFace model, left as it was after each call.
        decoder: Its text decoder, the module that owns ``layers``.
    """

    def __init__(self, model: Any, decoder: Any) -> None:
        self._model = model
        self._hooks = Hooks(decoder)
        self._masked = [
            Hook(layer, functools.partial(_with_layer_mask, number), None)
            for number, layer in enumerate(decoder.layers)
        ]
        self.program = functools.lru_cache(KEPT_PROGRAMS)(_program)

    def generate(self, run: Run, new_tokens: int, **settings: Any) -> Any:
        """``model.generate`` under the run, with compiled steps; returns what it returns.

        Args:
            run: Has not read its prompts yet; nothing in it acts on decode steps.
            new_tokens: Most tokens that are generated.
            **settings: Inputs and settings of ``model.generate``.

        Raises:
            UnsupportedError: If the model's decode step can't be compiled here.
        """
        with ExitStack() as stack:
            forward = _Forward(self._model, run, self, new_tokens, stack)
            stack.enter_context(forward)
            stack.enter_context(_told_apart_by_vectors())
            output = self._model.generate(**settings)
        if getattr(output, "past_key_values", None) is not None:
            output.past_key_values = forward.left()
        return output

    def read(self, run: Run, forward: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        """The prefill: what the model gives for the prompts."""
        return self._hooks.call(Passes(run), forward, **inputs)

    def begin(self, run: Run, room: int, stack: ExitStack) -> tuple[Cache, Callable[..., Tensor]]:
        """After the prefill: what is held, with room for so many tokens, and the step over it.

        Until the stack is closed every layer attends through the mask of its own buffer.
        """
        cache = static_cache(run.held, room)
        for hook in self._masked:
            stack.enter_context(hook)
        return cache, self.program(_shapes(cache))


class _Forward(Standin):
    """The model's ``forward`` in one call of ``generate``: the prefill, then compiled steps."""

    _program: Callable[..., Tensor]

    def __init__(
        self, model: nn.Module, run: Run, decoding: CompiledDecoding, room: int, stack: ExitStack
    ) -> None:
        super().__init__(model)
        self._run = run
        self._decoding = decoding
        self._room = room
        self._stack = stack
        self._cache: Any = None
        self._fed = 0

    def __call__(self, **inputs: Any) -> Any:
        if self._cache is None:
            output = self._decoding.read(self._run, self._forward, inputs)
            begun = self._decoding.begin(self._run, self._room, self._stack)
            self._cache, self._program = begun
            output["past_key_values"] = self._cache
            return output
        # Each layer has a mask of its own.
        inputs.pop("attention_mask", None)
        try:
            logits = self._program(self._forward, **inputs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            # The first of torch's paragraphs; the others are about its settings.
            reason = " ".join(str(error).strip().split("\n\n")[0].split())
            raise UnsupportedError(
                f"a decode step of {type(self._module).__name__} can't be compiled here: {reason}; "
                "leave decode='compiled' out"
            ) from error
        self._fed += 1
        return CausalLMOutputWithPast(logits=logits, past_key_values=self._cache)

    def left(self) -> Any:
        """The model's own cache, with what joined."""
        held = self._run.held
        for layer, cached, entries in zip(
            self._cache.layers, held.cache.layers, held.entries, strict=True
        ):
            cached.keys, cached.values = layer.first(entries.slots + self._fed)
        return held.cache


def static_cache(held: HeldCache, new_tokens: int) -> Cache:
    """What is held, in buffers with room for ``new_tokens`` more; its memory moves there."""
    layers: list[Any] = []
    for number, (cached, entries) in enumerate(zip(held.cache.layers, held.entries, strict=True)):
        size = -(-(entries.slots + new_tokens) // SLOTS) * SLOTS
        layer = StaticEntries(cached.keys, cached.values, held.static_mask(number, size))
        cached.keys, cached.values = layer.first(entries.slots)
        layers.append(layer)
    return Cache(layers=layers)


def _shapes(cache: Any) -> Shapes:
    return tuple((layer.keys.shape, layer.mask.shape) for layer in cache.layers)


def _program(_: Shapes) -> Callable[..., Tensor]:
    """A compiled step for buffers of these shapes, compiled at its first call."""

    def step(forward: Callable[..., Any], **inputs: Any) -> Tensor:
        logits: Tensor = forward(**inputs).logits
        return logits

    # torch counts and keeps what it compiles by code object: one for each program.
    alone = types.FunctionType(step.__code__.replace(), globals())
    return torch.compile(alone, fullgraph=True, dynamic=False, backend=BACKEND)


def _told_apart_by_vectors() -> AbstractContextManager[Any]:
    """While entered, programs that torch keeps on disk are told apart by the processor's vectors.

    torch itself takes no notice: a program that was made for longer ones gives wrong numbers.
    """
    tag = f"{config.cache_key_tag}{torch.backends.cpu.get_cpu_capability()}"
    patch: AbstractContextManager[Any] = config.patch(  # type: ignore[attr-defined]  # as torch adds it
        cache_key_tag=tag
    )
    return patch


def _with_layer_mask(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """Arguments of a layer, with the mask of its own buffer; part of what is compiled."""
    mask = kwargs["past_key_values"].layers[number].next_mask()
    return args, {**kwargs, "attention_mask": mask}
