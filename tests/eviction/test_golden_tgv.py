"""The released TGV-KV code's inputs and outputs, replayed through the library."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightkv.golden.tgv import replay, skip_reason

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    case
    for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
    if case["method"] == "tgv"
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_released_code_is_reproduced(case):
    reason = skip_reason(case)
    if reason:
        pytest.skip(reason)
    with np.load(GOLDEN / case["file"]) as arrays:
        assert replay(case, dict(arrays)) == []


def test_a_wrong_reference_is_noticed():
    case = CASES[0]
    with np.load(GOLDEN / case["file"]) as stored:
        arrays = dict(stored)
    arrays["score"] = arrays["score"] + 0.01
    arrays["kept_flat"] = arrays["kept_flat"] + 1
    lines = replay(case, arrays)
    assert any("score" in line for line in lines)
    assert any("kept_flat" in line for line in lines)


def test_a_prompt_without_image_is_refused_like_the_reference():
    case = {**CASES[0], "raises": "IndexError"}
    with np.load(GOLDEN / case["file"]) as stored:
        arrays = dict(stored)
    assert replay(case, arrays) != []
    arrays["input_ids"] = np.zeros_like(arrays["input_ids"])
    assert replay(case, arrays) == []
