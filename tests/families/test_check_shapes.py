"""Models of a real one's dimensions, and the tolerance of checks in half precision."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from lightkv.check.cli import check_command
from lightkv.check.runs import generation_costs
from lightkv.check.shapes import build_shape, shapes
from lightkv.check.subject import FLOAT32_LIMIT, Subject
from lightkv.check.tiny import ZOO
from lightkv.contract.view import ModelFacts
from lightkv.cost.presets import preset
from lightkv.errors import InvalidValueError, UnknownNameError

SMALL = "llava-onevision-qwen2-0.5b"


def test_every_family_in_transformers_has_its_shapes() -> None:
    assert {preset(name).family for name in shapes()} == {
        *("llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl")
    }


def test_a_shape_has_the_decoder_of_its_preset_and_generates_under_the_methods() -> None:
    vlm, entry = build_shape(SMALL, layers=4)
    assert vlm.facts == ModelFacts(layers=4, heads=14, kv_heads=2, hidden_size=896)
    costs = {cost.method: cost for cost in generation_costs(vlm, entry, pictures=4)}
    assert set(costs) == {"none", "lightkv", "tgvkv", "lightkv | tgvkv"}
    assert costs["none"].held == 1
    assert costs["tgvkv"].held == pytest.approx(0.2, abs=0.01)
    assert costs["lightkv | tgvkv"].held < costs["tgvkv"].held < costs["lightkv"].held < 1
    assert all(cost.seconds > 0 and cost.peak is None for cost in costs.values())


def test_shapes_that_cannot_be_built_are_errors() -> None:
    with pytest.raises(UnknownNameError, match=r"llava-1\.5-7b"):
        build_shape("llava-1.5-8b")
    with pytest.raises(UnknownNameError, match="eve"):
        build_shape("eve-7b-v1")
    with pytest.raises(InvalidValueError, match="4 to 24"):
        build_shape(SMALL, layers=3)
    with pytest.raises(InvalidValueError, match="dtype"):
        build_shape(SMALL, layers=4, dtype="float8")


@pytest.mark.parametrize(
    "arguments", [["--shape", SMALL, "--all-tiny"], ["--layers", "4"], ["folder", "--shape", SMALL]]
)
def test_options_that_do_not_go_together(arguments: list[str]) -> None:
    assert CliRunner().invoke(check_command, arguments).exit_code == 2


def test_the_limit_of_half_precision_is_the_noise_between_kernels() -> None:
    vlm = ZOO["llava"].build()
    row = ZOO["llava"].rows(vlm.model.config)[0]
    assert Subject(vlm, [row], row).limit == FLOAT32_LIMIT
    vlm.model.to(torch.bfloat16)
    row = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in row.items()}
    # Asked for first: nothing of the subject has run yet.
    assert 1e-4 < Subject(vlm, [row], row).limit < 0.5
    assert vlm.attention == "sdpa"
