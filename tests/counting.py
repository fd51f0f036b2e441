"""Kernels that torch launches, and places where the host waits for them, as exact counts.

They are the same on every machine, unlike times: a launch costs a GPU's host some microseconds, and
a place where the host waits costs it everything that was launched ahead.
"""

from __future__ import annotations

import cProfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that launch nothing: they allocate, or name a part of what is there.
_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "detach",
    "alias",
    "lift_fresh",
    "promote_types",
    "_unsafe_view",
    "_local_scalar_dense",
}
# Operators whose result has a size, or a value, that the host must know.
_WAITS = {
    "nonzero",
    "masked_select",
    "equal",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "is_nonzero",
}
# Methods through which Python reads a tensor.
_READS = ("item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__")


@dataclass
class Count:
    """What was counted.

    Attributes:
        kernels: Launches by operator.
        waits: Times the host waited, by what made it wait.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)

    def __sub__(self, other: Count) -> Count:
        ours, theirs = Counter(self.kernels), Counter(self.waits)
        ours.subtract(other.kernels)
        theirs.subtract(other.waits)
        return Count(ours, theirs)

    @property
    def launches(self) -> int:
        return sum(self.kernels.values())

    @property
    def syncs(self) -> int:
        return sum(self.waits.values())


class _Launches(TorchDispatchMode):
    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _NO_KERNEL:
            self.count.kernels[name] += 1
        # Indexing by a mask looks for its places.
        masks = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if name in _WAITS or masks:
            self.count.waits[f"{name} by mask" if masks else name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Count]:
    """Count what happens inside.

    A read from a tensor that a processor holds anyway counts too: on a GPU it may be one that it
    does not. numpy on the host counts as nothing, and neither do numbers that the host hands over
    without waiting.
    """
    count = Count()
    depth = 0
    with ExitStack() as stack:
        for name in _READS:
            original = getattr(Tensor, name)

            def read(
                tensor: Tensor, *args: Any, _name: str = name, _original: Any = original, **kw: Any
            ) -> Any:
                nonlocal depth
                # One read may call another; the host waits once.
                if depth == 0:
                    count.waits[_name] += 1
                depth += 1
                try:
                    return _original(tensor, *args, **kw)
                finally:
                    depth -= 1

            stack.enter_context(mock.patch.object(Tensor, name, read))
        stack.enter_context(_Launches(count))
        yield count


def calls_of(function: Callable[[], Any]) -> int:
    """Calls of functions that Python makes meanwhile, its own and those of C."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return sum(one.callcount for one in profile.getstats())
