"""How a family says which pictures stand in a row, and reads the inputs that carry their grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from lightkv.errors import InputError
from lightkv.families.slots import Picture

#: Pictures of one row: (placeholder id, ids (N,) of the row, its slots (n,)) -> pictures in order.
Supply = Callable[[int, Tensor, Tensor], Sequence[Picture]]


def from_queues(queues: Mapping[int, Sequence[Picture]]) -> Supply:
    """Pictures listed for the whole batch, per placeholder id, in prompt order."""
    waiting: dict[int, Iterator[Picture]] = {token: iter(q) for token, q in queues.items()}

    def supply(token: int, _: Tensor, slots: Tensor) -> list[Picture]:
        taken: list[Picture] = []
        while sum(picture.tokens for picture in taken) < len(slots):
            picture = next(waiting.get(token, iter(())), None)
            if picture is None:
                break
            taken.append(picture)
        return taken

    return supply


def read_input(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """An input that carries grids.

    Raises:
        InputError: If the processor's output lacks it.
    """
    value = inputs.get(name)
    if value is None:
        raise InputError(f"{name} is missing; pass on everything the processor returns")
    return value
