"""Code from outside the package is part of what results depend on, as it is loaded."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import provenance
from analysis.asking.store import Store
from analysis.provenance.loaded import loaded_code
from analysis.scoring.metrics import Metric, each
from analysis.tasks import task
from lightkv import TGVKV, LightKV, Request
from lightkv.contract.compressor import Compressor
from lightkv.errors import UnsupportedError
from lightkv.eviction.evictor import Evicting
from tests.analysis.asked import run
from tests.analysis.fake import FakeVLM

MINE = '''
"""A ranking of mine."""
import functools
import re
from dataclasses import dataclass
from lightkv.eviction.parts.rankings import Ranking
from my_helpers import scaled
import my_helpers as helpers

FACTOR = 2.0
WORDS = re.compile("a|b")


@dataclass(frozen=True)
class Mine(Ranking):
    """Ranks."""

    weight: float = 1.0
    bonus = 3

    def score(self, view):
        """Scores."""
        real = view.layout.real  # entries
        return scaled(real.float() * self.weight * FACTOR) + inner(real) + self.bonus

    @functools.cached_property
    def rule(self):
        return lambda x: x + 1

    @staticmethod
    def unused(value):
        return helpers.other(value) if WORDS.match("a") else value


def inner(value):
    return value * 1


def unreached(value):
    return value * 1
'''
HELPERS = """
def scaled(value):
    return value * deeper(value)


def deeper(value):
    return 1.0


def other(value):
    return [one for one in (1, 2)]
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Write both files with replacements, load them anew, return the module ``mine``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode

    def write_and_load(old: str = "", new: str = "") -> Any:
        assert not old or (MINE + HELPERS).count(old) == 1, old
        (tmp_path / "mine.py").write_text(MINE.replace(old, new) if old else MINE)
        (tmp_path / "my_helpers.py").write_text(HELPERS.replace(old, new) if old else HELPERS)
        importlib.invalidate_caches()
        for name in ("mine", "my_helpers"):
            sys.modules.pop(name, None)
        return importlib.import_module("mine")

    yield write_and_load
    sys.dont_write_bytecode = before
    for name in ("mine", "my_helpers"):
        sys.modules.pop(name, None)


CHANGES = [
    ("self.weight * FACTOR", "self.weight - FACTOR", True),
    ("FACTOR = 2.0", "FACTOR = 2.5", True),
    ("bonus = 3", "bonus = 4", True),
    ("inner(value):\n    return value * 1", "inner(value):\n    return value * 2", True),
    ("x + 1", "x + 2", True),
    ("value * deeper(value)", "value / deeper(value)", True),
    ("return 1.0", "return 2.0", True),
    ("(1, 2)", "(1, 3)", True),
    ('re.compile("a|b")', 're.compile("a|c")', True),
    ("weight: float = 1.0", "weight: float = 2.0", True),
    ("# entries", "# all entries", False),
    ('"""Scores."""', '"""Gives a score."""', False),
    ('        """Scores."""\n', "", False),
    ('    """Ranks."""', '    """R."""', False),
    ("unreached(value):\n    return value * 1", "unreached(value):\n    return value * 2", False),
    ("FACTOR = 2.0", "\n\n\nFACTOR = 2.0", False),
]


@pytest.mark.parametrize(("old", "new", "changes"), CHANGES)
def test_what_a_user_edits(load: Any, old: str, new: str, changes: bool) -> None:
    before = loaded_code([load().Mine])
    after = loaded_code([load(old, new).Mine])
    assert len(before) == 16
    assert (before != after) is changes
    assert loaded_code([load().Mine]) == before


def test_edited_code_is_asked_again(load: Any, tmp_path: Path) -> None:
    """The store used to give back the rows of the code before the edit."""

    def say(request: Request, compressor: Compressor | None) -> str:
        assert isinstance(compressor, Evicting)
        scores = compressor.ranking.score.__code__.co_consts
        return request.question.lstrip("q") if 5.0 in scores else "wrong"

    def score(module: Any) -> tuple[float, int]:
        vlm = FakeVLM(say)
        method = Evicting(ranking=module.Mine(), retention=0.5)
        with Store(tmp_path / "results") as store:
            frame = run(vlm, methods={"mine": method}, store=store)
        return float(frame["score"].mean()), vlm.asked

    assert score(load()) == (0.0, 10)
    assert score(load("self.weight * FACTOR", "self.weight * 5.0")) == (1.0, 10)
    assert score(load()) == (0.0, 0)


def test_two_settings_of_one_ranking_are_asked_apart(load: Any) -> None:
    module = load()
    vlm = FakeVLM(lambda request, compressor: repr(compressor))
    methods = {str(w): Evicting(ranking=module.Mine(w), retention=0.5) for w in (1.0, -1.0)}
    frame = run(vlm, methods=methods)
    assert vlm.asked == 20
    assert frame.groupby("method")["answer"].first().nunique() == 2


def test_what_hides_a_parameter_is_refused_before_anything_runs() -> None:
    from tests.analysis.test_identity import Undecorated

    vlm = FakeVLM(lambda *_: "x")
    methods = {str(w): Evicting(ranking=Undecorated(w), retention=0.5) for w in (1.0, -1.0)}
    with pytest.raises(UnsupportedError, match="Undecorated"):
        run(vlm, methods=methods)
    assert vlm.asked == 0


def test_classes_made_in_a_function_differ_by_what_they_close_over() -> None:
    def make(weight: float) -> type:
        class Local:
            held = weight

            def score(self) -> float:
                return weight

        return Local

    def closing(weight: Any) -> type:
        class Local:
            def score(self) -> Any:
                return weight

        return Local

    assert loaded_code([make(1.0)]) != loaded_code([make(2.0)])
    assert loaded_code([closing(1.0)]) != loaded_code([closing(2.0)])
    assert loaded_code([closing(1.0)]) == loaded_code([closing(1.0)])
    with pytest.raises(UnsupportedError, match=r"weight.*generator"):
        loaded_code([closing(one for one in ())])


def test_a_changed_class_attribute_counts() -> None:
    class Local:
        held = 1

    before = loaded_code([Local])
    Local.held = 2
    assert loaded_code([Local]) != before


def test_tensors_and_tables_in_a_module_count() -> None:
    import numpy as np
    import torch

    def made(table: Any) -> type:
        class Local:
            def score(self) -> Any:
                return table

        return Local

    for first, second in (
        (torch.ones(3), torch.zeros(3)),
        (torch.ones(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)),
        (torch.ones(()), torch.zeros(())),
        (np.ones(3), np.zeros(3)),
    ):
        assert loaded_code([made(first)]) != loaded_code([made(second)])
        assert loaded_code([made(first)]) == loaded_code([made(first + 0)])


def test_a_users_metric_and_task_count() -> None:
    def mine(answer: str, references: Any) -> float:
        return 1.0

    assert loaded_code([Metric("mine", each(mine)).scores]) != ""
    assert loaded_code([task("embedded/read"), TGVKV(), LightKV((1,), (1,), (0.5,))]) == ""
    assert loaded_code([FakeVLM]) != ""


def test_our_own_code_and_libraries_are_not_outside() -> None:
    import torch

    class Local(torch.nn.Linear):
        pass

    lines = provenance.code_of([Local], ["lightkv.vlm"])
    assert lines.count("+") == 1
    assert "+" not in provenance.code_of([TGVKV(retention=0.5), None], ["lightkv.vlm"])


SCRIPT = """
from dataclasses import dataclass
from analysis.provenance.loaded import loaded_code
from lightkv.eviction.parts.rankings import Ranking
helper = {"b", "a", "c", "d"}
@dataclass(frozen=True)
class Typed(Ranking):
    weight: float = 1.0
    def score(self, view):
        return view if view in ("a", "b") or view in {"x", "y", "z"} else helper
print(loaded_code([Typed]))
"""


def test_code_typed_into_a_session_has_the_same_digest_in_every_process() -> None:
    def digest(script: str, seed: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        return result.stdout.strip()

    first = digest(SCRIPT, "1")
    assert len(first) == 16
    assert digest(SCRIPT, "2") == first
    assert digest(SCRIPT.replace('"d"', '"e"'), "1") != first
