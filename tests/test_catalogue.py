"""The one registry of methods: what it refuses, and how methods from elsewhere get into it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lightkv import catalogue
from lightkv.catalogue import compressor, load_module, method, methods
from lightkv.contract import registry
from lightkv.contract.decoding import Grow
from lightkv.contract.registry import register
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.eviction import Evicting, EvictOne, FixedSlot, HoldBudget
from lightkv.eviction.methods.snapkv import snapkv
from lightkv.pruning import FastV

FACTS = ModelFacts(layers=8, heads=4, kv_heads=2, hidden_size=64)

OWN = """
from lightkv.contract.registry import register
from lightkv.eviction import Evicting
from lightkv.eviction.parts.selections import ByScore

@register("{name}")
def two_ends(retention: float, ends: int = 2) -> Evicting:
    "My own."
    return Evicting(selection=ByScore(), retention=retention, protect_first=ends)
"""


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The registry, put back after the test; modules imported meanwhile are forgotten."""
    loaded = set(sys.modules)
    monkeypatch.setattr(registry, "_METHODS", methods())
    yield registry._METHODS
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def test_methods_come_in_alphabetical_order_and_know_when_they_act() -> None:
    entries = methods()
    assert list(entries) == sorted(entries)
    assert entries["fastv"].stage == entries["lightkv"].stage == "in prefill"
    assert entries["snapkv"].stage == entries["tome-cache"].stage == "after prefill"
    assert all(one.description for one in entries.values())
    assert {n for n, one in entries.items() if one.by_share} == {
        "dart",
        "divprune",
        "downsample",
        "fastv",
        "hired",
        "uniform-grid",
    }
    assert entries["snapkv"].takes_retention and not entries["tome-cache"].takes_retention


def test_every_option_is_reachable_by_name() -> None:
    text = "snapkv:retention=.5;window=8;kernel=3;pooling=max;protect_first=0;redistribute=False"
    assert compressor(text, FACTS) == Evicting(
        ranking=snapkv(1, window=8, kernel=3, pooling="max").ranking,
        selection=snapkv(1, window=8).selection,
        retention=0.5,
        protect_first=0,
        redistribute=False,
    )
    assert compressor("h2o:entries=64", FACTS) == method("h2o", entries=64)
    assert compressor("fastv:removed=1", FACTS) == FastV(removed=1.0)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("Grow", Grow()),
        ("EvictOne()", EvictOne()),
        ("FixedSlot(distance=3)", FixedSlot(3)),
        ("HoldBudget(victim='oldest', capacity=9)", HoldBudget("oldest", capacity=9)),
    ],
)
def test_decode_policies_are_written_as_calls(text: str, policy: object) -> None:
    built = compressor(f"h2o:retention=.5;decode={text}", FACTS)
    assert isinstance(built, Evicting)
    assert built.decode == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("h2o", "retention of h2o"),
        ("tgvkv:entries=4;retention=.5", "retention"),
        ("h2o:retention=True", "a number"),
        ("h2o:retention=half", "a number"),
        ("h2o:retention=.5;per_head=1", "True or False"),
        ("h2o:entries=4.0", "a whole number or None"),
        ("h2o:retention=.5;retention=.5", "retention once"),
        ("h2o:retention=.5;budget=Uniform", "options of h2o: retention, per_head, entries"),
        ("snapkv:retention=.5;pooling=mean", "'avg', 'max', 'none'"),
        ("streamingllm:retention=.5;protect_first=2", "sinks"),
        ("tgvkv-released:retention=.5;redistribute=True", "options of tgvkv-released"),
        ("lightkv:layers=(1, 2.5)", "a tuple, each of it a whole number"),
        ("h2o:retention=.5;decode=Grow(", "a name, or Name"),
        ("h2o:retention=.5;decode=FixedSlot(3)", "a name, or Name"),
        ("h2o:retention=.5;decode=FixedSlot(place=3)", "options of FixedSlot: distance"),
        ("h2o:retention=.5;decode=FixedSlot(distance=2.5)", "a whole number"),
        ("h2o:retention=.5;decode=3", "a DecodePolicy"),
    ],
)
def test_wrong_options_say_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words.replace("(", r"\(")):
        compressor(text, FACTS)


def test_unknown_decode_policies_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Grow"):
        compressor("h2o:retention=.5;decode=Growing", FACTS)


def test_a_name_is_given_once(own_registry: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=r"methods\.snapkv\.snapkv has it"):
        register("snapkv")(lambda retention: Evicting(retention=retention))
    assert register("snapkv")(snapkv) is snapkv  # the same again, as a reloaded module does


def test_a_class_needs_no_builder(own_registry: dict[str, Any]) -> None:
    @register("mine")
    @dataclass(frozen=True)
    class Mine(Evicting):
        """What I made."""

        colour: str = "red"

    assert method("mine", 0.5, colour="blue") == Mine(retention=0.5, colour="blue")
    assert own_registry["mine"].description == "What I made."


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_module_of_the_user_is_loaded(
    by: str, tmp_path: Path, own_registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"own_by_{by}.py"
    file.write_text(OWN.format(name="own-method"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_module(str(file) if by == "path" else file.stem) == ("own-method",)
    built = compressor("own-method:retention=.5;ends=3;protect_last=2", FACTS)
    assert built == Evicting(retention=0.5, protect_first=3, protect_last=2)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.py", None, "not a file"),
        ("no_such_module", None, "No module named"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        ("json.py", "", "already loaded"),
    ],
)
def test_modules_that_can_not_be_loaded(
    name: str, content: str | None, words: str, tmp_path: Path, own_registry: dict[str, Any]
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=words):
        load_module(str(file) if name.endswith(".py") else name)
    assert "broken" not in sys.modules


def test_other_distributions_offer_methods(
    tmp_path: Path, own_registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from_elsewhere.py").write_text(OWN.format(name="elsewhere"))
    (tmp_path / "falls_over.py").write_text("1 / 0")
    for number, module in enumerate(("falls_over", "from_elsewhere")):
        info = tmp_path / f"dist{number}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist{number}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[lightkv.methods]\nx = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    catalogue._load.cache_clear()
    with pytest.warns(UserWarning, match=r"falls_over can't be loaded: ZeroDivisionError"):
        assert "elsewhere" in methods()
