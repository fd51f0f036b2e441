"""Methods that differ never print alike; those that could are refused."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.asking.method_grid import compressors
from analysis.provenance import described
from lightkv import TGVKV, LightKV
from lightkv.catalogue import methods
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import UnsupportedError
from lightkv.eviction.parts.rankings import Ranking

FACTS = ModelFacts(8, 4, 4, 128)


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_registered_method_prints_as_its_repr(name: str) -> None:
    for label, method in compressors([name], [0.25], FACTS).items():
        assert described(method) == repr(method), label


def test_compositions_print_as_their_repr() -> None:
    both = LightKV((1,), (1,), (0.5,)) | TGVKV(retention=0.25)
    assert described(both) == repr(both)


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Plain(Ranking):
    weight: Any = 1.0

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real * self.weight

    @functools.cached_property
    def doubled(self) -> Any:
        return self.weight * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.1, 0.1 + 1e-17 + 2e-17),
        (True, 1),
        ("1", 1),
        ((1,), [1]),
        ((1, 2), (2, 1)),
        (frozenset((1, 2)), frozenset((1, 3))),
        ({"a": 1}, {"a": 2}),
        (Color.RED, Color.BLUE),
        (Plain(1.0), Plain(-1.0)),
        (None, "None"),
    ],
)
def test_values_that_differ_print_differently(one: object, other: object) -> None:
    assert described(Plain(one)) != described(Plain(other))


def test_numbers_of_numpy_print_as_numbers() -> None:
    assert described(Plain(np.float64(0.25))) == described(Plain(0.25))
    assert described(Plain(np.int64(3))) == described(Plain(3))


def test_sets_print_in_one_order() -> None:
    assert described(frozenset(("b", "a", "c"))) == "frozenset([\"'a'\", \"'b'\", \"'c'\"])"


def test_what_is_computed_from_fields_is_no_parameter() -> None:
    used = Plain(2.0)
    assert used.doubled == 4.0
    assert described(used) == "Plain(weight=2.0)"


class Undecorated(Ranking):
    def __init__(self, weight: float) -> None:
        object.__setattr__(self, "weight", weight)

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real.float()


class OnlyOtherCode(Plain):
    def score(self, view: LayerView) -> Tensor:
        return -super().score(view)


@dataclass
class Thawed:
    weight: float = 1.0


@dataclass(frozen=True)
class Quiet(Ranking):
    weight: float = field(default=1.0, repr=False)

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real * self.weight


@dataclass(frozen=True)
class Uncompared(Ranking):
    weight: float = field(default=1.0, compare=False)

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real * self.weight


@dataclass(frozen=True)
class AlwaysEqual(Ranking):
    weight: float = 1.0

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real * self.weight


@dataclass(frozen=True)
class Computing(Ranking):
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", -self.weight)

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real * self.weight


class Slotted(Ranking):
    __slots__ = ("weight",)

    def score(self, view: LayerView) -> Tensor:
        return view.layout.real.float()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Undecorated(1.0), "Undecorated.*'weight'.*not fields"),
        (Thawed(), "Thawed.*not frozen"),
        (Quiet(), "Quiet.*'weight'.*repr"),
        (Uncompared(), "Uncompared.*'weight'.*equality"),
        (AlwaysEqual(), "AlwaysEqual.*equality of its own"),
        (Computing(), "Computing.*'secret'"),
        (Slotted(), "Slotted.*'weight'"),
        (Plain(torch.zeros(2)), "Tensor"),
        (Plain(np.zeros(2)), "ndarray"),
        (Plain(lambda: 1), "function"),
        (Plain((1, object())), "object"),
    ],
)
def test_what_hides_a_parameter_is_refused_by_name(part: object, reason: str) -> None:
    assert Undecorated(1.0) == Undecorated(-1.0), "the confusion that is to be prevented"
    with pytest.raises(UnsupportedError, match=reason):
        described(Plain(part))


def test_a_subclass_with_other_code_only_is_fine() -> None:
    assert described(OnlyOtherCode(2.0)) == "OnlyOtherCode(weight=2.0)"
