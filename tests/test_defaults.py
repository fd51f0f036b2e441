"""Every default is the one that ``docs/defaults.md`` gives with its source; none is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from lightkv import TGVKV, LightKV
from lightkv.catalogue import methods
from lightkv.contract.compressor import Compressor
from lightkv.contract.decoding import DecodePolicy
from lightkv.contract.registry import RETENTION
from lightkv.eviction import Evicting
from lightkv.eviction.parts.budgets import Budget
from lightkv.eviction.parts.merges import AnchorMerge
from lightkv.eviction.parts.rankings import Ranking
from lightkv.eviction.parts.selections import Selection
from lightkv.pruning.sparsevlm import TABLE, TABLE_PLUS

PAGE = Path(__file__).parents[1] / "docs" / "defaults.md"
REQUIRED = {RETENTION: 0.5, "layers": (1,), "windows": (2,), "ratios": (0.5,)}
"""What a method that must be given something is given here."""

Defaults = dict[str, Any]


def read(page: Path) -> dict[str, Defaults]:
    """Section by section, what the page says of each subject; every row has a source."""
    tables: dict[str, Defaults] = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] == "of":
            continue
        subject, defaults, source = cells
        assert source, line
        known = tables.setdefault(subject.strip("`"), {})
        for pair in re.findall("`([^`]+)`", defaults):
            name, value = pair.split("=", 1)
            assert name not in known, f"{subject} has {name} twice"
            known[name] = value if value[0].isupper() and value not in LITERALS else literal(value)
    return tables


LITERALS = ("None", "True", "False")


def literal(text: str) -> Any:
    return ast.literal_eval(text)


def flat(part: Any, prefix: str = "") -> Defaults:
    """Fields of a dataclass by dotted name; a part is the name of its class and its own fields."""
    values: Defaults = {}
    for field in fields(part):
        if not field.init:
            continue
        name, value = prefix + field.name, getattr(part, field.name)
        if is_dataclass(value):
            values[name] = type(value).__name__
            values |= flat(value, f"{name}.")
        else:
            values[name] = value
    return values


SAID = read(PAGE)
METHODS = {n: m for n, m in methods().items() if m.build.__module__.startswith("lightkv.")}
"""Methods of the package; other tests may have registered some of their own."""
PLAIN = flat(Evicting())


def beyond(built: Compressor, plain: Defaults, required: Defaults) -> Defaults:
    """What a method is beyond what all are, and beyond what it was given here.

    Fields of a part that the plain composition has too count if the part is another one.
    """
    defaults = flat(built)
    parts = {
        name for name, value in defaults.items() if plain.get(name) != value and "." not in name
    }
    return {
        name: value
        for name, value in defaults.items()
        if name not in required
        and (name not in plain or plain[name] != value or name.split(".")[0] in parts)
    }


def test_every_evictor() -> None:
    assert flat(Evicting()) == SAID["evictor"]


@pytest.mark.parametrize("name", METHODS)
def test_a_registered_method_has_the_defaults_of_the_page(name: str) -> None:
    entry = METHODS[name]
    required = {option: REQUIRED[option] for option in entry.required}
    built = entry.make(**required)
    plain = PLAIN if isinstance(built, Evicting) else {}
    assert beyond(built, plain, required) == SAID[name], f"correct {PAGE.name} or the code"


RELEASED: dict[str, tuple[Compressor, Compressor]] = {
    'LightKV.released("llava")': (LightKV.released("llava"), LightKV((0,), (1,), (0.1,))),
    'LightKV.released("qwen")': (LightKV.released("qwen"), LightKV((0,), (1,), (0.1,))),
    "TGVKV()": (TGVKV(), TGVKV(retention=0.5)),
    "TGVKV.released()": (TGVKV.released(), TGVKV(retention=0.5)),
}


@pytest.mark.parametrize("name", RELEASED)
def test_what_the_released_codes_do(name: str) -> None:
    built, plain = (flat(one) for one in RELEASED[name])
    assert {n: v for n, v in built.items() if n not in plain or plain[n] != v} == SAID[name]


def parts() -> Iterator[type]:
    """Every part of the package that has a field with a default."""
    waiting: list[type] = [Budget, Ranking, Selection, AnchorMerge, DecodePolicy]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("lightkv.") and own_defaults(kind):
            yield kind


def own_defaults(kind: type) -> Defaults:
    if not is_dataclass(kind):
        return {}
    known = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    return {n: type(v).__name__ if is_dataclass(v) else v for n, v in known.items()}


@pytest.mark.parametrize("kind", list(parts()), ids=lambda kind: kind.__name__)
def test_a_part_by_itself(kind: type) -> None:
    assert own_defaults(kind) == SAID[kind.__name__]


def test_the_page_speaks_of_nothing_else() -> None:
    known = {"evictor", *METHODS, *RELEASED, *(kind.__name__ for kind in parts())}
    assert set(SAID) == known


def test_sparsevlms_tables() -> None:
    """Vision tokens after layers 2, 6, 15, by their average (the released code, v1 and "+")."""
    assert TABLE == {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)}
    assert TABLE_PLUS == {
        192: (300, 200, 118),
        128: (238, 108, 60),
        96: (246, 54, 28),
        64: (66, 34, 20),
    }
