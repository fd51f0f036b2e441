"""The released TGV-KV code's inputs and outputs, replayed through the library."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightkv.golden.tgv import replay

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    case
    for case in json.loads((GOLDEN / "index.json").read_text())["cases"]
    if case["method"] == "tgv"
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_released_code_is_reproduced(case):
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


def test_a_wrong_decode_step_is_named():
    case = CASES[0]
    with np.load(GOLDEN / case["file"]) as stored:
        arrays = dict(stored)
    arrays["dec_drop_slot"] = arrays["dec_drop_slot"].copy()
    arrays["dec_drop_slot"][2, 1] += 1
    assert replay(case, arrays) and "step 2, layer 1: dec_drop_slot" in replay(case, arrays)[0]


@pytest.mark.parametrize(("ratio", "seen"), [(0.01, 60), (0.5, 120)])
def test_prompts_with_nothing_to_drop_are_left_alone(ratio, seen):
    with np.load(GOLDEN / CASES[0]["file"]) as stored:
        arrays = {name: stored[name] for name in ("attn", "input_ids", "score", "cross_sum")}
    layers, length = len(arrays["attn"]), arrays["attn"].shape[-1]
    arrays["kept_len"] = np.full(layers, length)
    arrays["kept_flat"] = np.tile(np.arange(length), layers)
    case = {**CASES[0], "ratio": ratio, "num_of_token": seen}
    assert replay(case, arrays) == []


def test_a_prompt_without_image_is_refused_like_the_reference():
    case = {**CASES[0], "raises": "IndexError"}
    with np.load(GOLDEN / case["file"]) as stored:
        arrays = dict(stored)
    assert replay(case, arrays) != []
    arrays["input_ids"] = np.zeros_like(arrays["input_ids"])
    assert replay(case, arrays) == []
