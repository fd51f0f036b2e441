"""Numbers that the host shares between runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightkv.contract import host, layout

CPU = torch.device("cpu")


@pytest.mark.parametrize("shared", [host._first_numbers, host._true, layout._blank])
def test_what_is_made_during_inference_serves_where_gradients_flow(shared: object) -> None:
    assert callable(shared)
    shared.cache_clear()  # type: ignore[attr-defined]
    with torch.inference_mode():
        made: Tensor = shared(CPU)
    assert not made.is_inference() and shared(CPU) is made
    weight = torch.ones(made.shape, requires_grad=True)
    (weight * made).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and torch.equal(weight.grad, made.to(weight.dtype))


def test_consecutive_numbers_go_on_beyond_those_that_are_shared() -> None:
    for count in (0, 3, host._MOST, host._MOST + 1):
        assert torch.equal(host.consecutive(count, CPU), torch.arange(count))
