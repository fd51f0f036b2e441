"""Annotations are rules: fields of every method and part hold what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np
import pytest

from lightkv.catalogue import methods
from lightkv.contract.parts import concrete
from lightkv.contract.types import Checked, check_type, field_types, fits, plain, words
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.budgets import Uniform
from lightkv.merging.lightkv import LightKV


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [3, -1, 0], [True, 2.0, "3", None, int]),
        (float, [0.5, 1, float("nan")], [True, "0.5", None, [0.5]]),
        (bool, [True, False], [0, 1, "yes", None]),
        (str, ["", "word"], [3, None, b"word", str]),
        (int | None, [3, None], [2.5, "3", False]),
        (Literal["a", "b"], ["a"], ["c", None, 1, ["a"]]),
        (Literal[1, "x"], [1], [True, 1.0]),
        (tuple[int, ...], [(), (1, 2)], [[1, 2], (1, 2.5), "12", 1, (True,)]),
        (tuple[str, int], [("a", 1)], [("a",), ("a", "b"), ("a", 1, 2)]),
        (Sequence[str], [["a"], ("a", "b"), []], ["ab", {"a": 1}, [1], None]),
        (Mapping[int, str], [{1: "a"}, {}], [{"1": "a"}, {1: 1}, [(1, "a")]]),
        (Uniform, [Uniform()], [Uniform, "uniform", None]),
        (Any, [None, 3, "x"], []),
    ],
    ids=lambda value: words(value) if not isinstance(value, list) else "",
)
def test_what_fits(hint: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert fits(value, hint), value
        check_type("value", value, hint)
    for value in bad:
        assert not fits(value, hint), value
        with pytest.raises(InvalidValueError, match=r"^value is "):
            check_type("value", value, hint)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int | None, "a whole number or None"),
        (Literal["avg", "max"], "one of 'avg', 'max'"),
        (tuple[float, ...], "a tuple, each of it a number"),
        (tuple[str, int], "a tuple of a text, a whole number"),
        (Sequence[bool], "a list or tuple, each of it True or False"),
        (Mapping[int, str], "a mapping, each of it a whole number to a text"),
        (Uniform, "a Uniform"),
    ],
)
def test_annotations_in_words(hint: Any, expected: str) -> None:
    assert words(hint) == expected


def test_lists_and_numpy_scalars_become_plain() -> None:
    value = plain([np.float32(0.5), [np.int64(3)], "x"])
    assert value == (0.5, (3,), "x")
    assert type(value[0]) is float and type(value[1][0]) is int
    made = LightKV([1], [np.int64(2)], (np.float64(0.5),))
    assert made == LightKV((1,), (2,), (0.5,)) and hash(made) == hash(LightKV((1,), (2,), (0.5,)))
    assert type(made.windows[0]) is int
    notes: list[int] = []
    assert Listing(notes).notes is notes


@dataclass(frozen=True)
class Local(Checked):
    number: int = 3


@dataclass(frozen=True)
class Listing(Checked):
    notes: list[int]


def test_wrong_fields_are_refused_when_the_thing_is_made() -> None:
    with pytest.raises(InvalidValueError, match=r"number is '3'; allowed: a whole number"):
        Local("3")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"retention is '0.2'; allowed: a number"):
        Evicting(retention="0.2")  # type: ignore[arg-type]


def test_every_field_of_every_method_and_part_is_checked() -> None:
    methods()
    kinds = [kind for kind in concrete(Checked) if is_dataclass(kind)]
    assert len(kinds) > 40
    for kind in kinds:
        assert set(field_types(kind)) == {field.name for field in fields(kind)}, kind
