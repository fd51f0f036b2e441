"""Inputs and outputs of published functions of 2026, replayed through the library."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightkv.golden.verify import replay_of, verify

GOLDEN = Path(__file__).parents[1] / "golden2026"
METHODS = ("keydiff", "tova", "vlcache", "mixkv", "kvzip", "kvzip_press")
CASES = [
    case
    for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
    if case["method"] in METHODS
]


def arrays_of(case):
    with np.load(GOLDEN / case["file"]) as stored:
        return dict(stored)


@pytest.mark.parametrize("case", CASES, ids=[case["file"] for case in CASES])
def test_published_functions_are_reproduced(case):
    assert replay_of(case["method"]).replay(case, arrays_of(case)) == []


@pytest.mark.parametrize("method", METHODS)
def test_every_recorded_output_is_compared(method):
    """A change of any of them is noticed."""
    case = next(case for case in CASES if case["method"] == method)
    replay = replay_of(method).replay
    for name, value in arrays_of(case).items():
        if name.startswith(("kept", "valid", "score", "similarity", "sparsity", "threshold")):
            if name == "score" and method == "kvzip_press":
                continue  # there it is an input
            changed = ~value if value.dtype == bool else value + 1
            lines = replay(case, {**arrays_of(case), name: changed})
            assert any(line.startswith(name) for line in lines), name


def test_the_folder_can_be_verified():
    by_name = {outcome.name: outcome for outcome in verify(GOLDEN).outcomes}
    assert all(not by_name[case["file"]].failures for case in CASES)
