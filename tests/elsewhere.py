"""A device that is not the processor, for tests without one: it computes on the processor, but
tensors on it and on the host don't mix, and every wait of the host for it is counted.

Tensors on it say that they are on torch's "meta" device, which needs no hardware; what they hold is
a tensor of the processor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

# Operators that take an index, or values, from the host.
_MIXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_to_copy", "copy_"}
# Operators whose result has a size, or a value, that the host must know.
_WAITS = {"_local_scalar_dense", "nonzero", "unique_consecutive", "_unique2", "equal"}


class Elsewhere(Tensor):
    """A tensor on the device."""

    held: Tensor
    waits: Counter[str]

    @staticmethod
    def __new__(cls, held: Tensor, waits: Counter[str]) -> Elsewhere:
        made: Any = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held, made.waits = held, waits
        moved: Elsewhere = made
        return moved

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = next(one for one in tree_leaves((args, kwargs)) if isinstance(one, Elsewhere))
        return _run(first.waits, func, args, kwargs or {})

    def tolist(self) -> Any:
        self.waits["tolist"] += 1
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor on a device is not an array on the host")


def _run(waits: Counter[str], func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, Elsewhere)]
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim()]
    if there and here and name not in _MIXES:
        raise RuntimeError(f"{name} mixes tensors of the device and of the host")
    if name == "_fused_sdp_choice":
        return 0  # the plain product: fused kernels are chosen by device
    result_there, options = bool(there), dict(kwargs)
    if name == "copy_":
        result_there = isinstance(args[0], Elsewhere)
    if options.get("device") is not None:
        result_there, options["device"] = torch.device(options["device"]) == DEVICE, "cpu"
    masks = name in ("index", "index_put_") and any(
        one is not None and one.dtype == torch.bool for one in args[1]
    )
    fetches = name == "_to_copy" and not result_there
    if there and (name in _WAITS or masks or fetches):
        waits[name] += 1

    def held(one: Any) -> Any:
        return one.held if isinstance(one, Elsewhere) else one

    def moved(one: Any) -> Any:
        return Elsewhere(one, waits) if result_there and type(one) is Tensor else one

    made = func(*tree_map(held, args), **tree_map(held, options))
    # Operators that write into their first argument hand that back.
    if isinstance(made, Tensor) and args and made is held(args[0]):
        return args[0]
    return tree_map(moved, made)


class _Mode(TorchDispatchMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(self.waits, func, args, kwargs or {})


@contextmanager
def elsewhere(model: nn.Module, inputs: dict[str, Tensor]) -> Iterator[Any]:
    """Put a model and its inputs on the device, and leave them there; inside, others may follow.

    Yields:
        The inputs there, and the counter of waits by operator.
    """
    waits: Counter[str] = Counter()
    make = torch.tensor

    def tensor(data: Any, **settings: Any) -> Tensor:
        device = settings.pop("device", None)
        made = make(data, **settings)
        wanted = device is not None and torch.device(device) == DEVICE
        return Elsewhere(made, waits) if wanted else made

    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None:
                there = nn.Parameter(Elsewhere(one.data, waits), requires_grad=False)
                module._parameters[name] = there
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Elsewhere(buffer, waits)
    with torch.no_grad(), mock.patch.object(torch, "tensor", tensor), _Mode(waits):
        yield {name: Elsewhere(value, waits) for name, value in inputs.items()}, waits
