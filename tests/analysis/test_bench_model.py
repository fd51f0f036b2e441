"""Whole requests to a decoder of full depth: what is built, measured, stored and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from analysis.timing import bench_model, limits, model_settings
from analysis.timing.bench_cli import bench_group
from analysis.timing.bench_decoder import BenchDecoder, decoder_of, grid_of, has_bfloat16
from analysis.timing.bench_model import measure_model
from analysis.timing.model_settings import METHODS, ModelBenchSettings
from analysis.timing.model_summary import break_even, summarise_model
from lightkv.catalogue import compressor
from lightkv.cost.presets import ModelPreset, preset
from lightkv.cost.presets.shape import ModelShape, ProjectorShape, TextShape, VisionShape
from lightkv.errors import InputError, InvalidValueError, StoreError, UnknownNameError
from tests.closeness import assert_close

CPU = torch.device("cpu")
SHAPES = (
    "llava-1.5-7b",
    "llava-1.5-13b",
    "llava-next-mistral-7b",
    "qwen2.5-vl-7b",
    "qwen3-vl-8b",
)


def tiny(name: str) -> ModelPreset:
    """A preset of small dimensions and its own depth."""
    shipped = preset(name)
    depth = shipped.shape.text.layers
    text = TextShape(depth, hidden=64, intermediate=96, heads=4, kv_heads=2, head_dim=16, vocab=160)
    if shipped.shape.vision is None:
        return dataclasses.replace(shipped, shape=ModelShape(text))
    vision = VisionShape(2, 32, 64, 4, image_size=28, patch_size=14, tokens=5, used_layers=1)
    return dataclasses.replace(
        shipped, shape=ModelShape(text, vision, ProjectorShape(32, 64, 64, 4))
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    bench_model.tower_seconds.cache_clear()
    monkeypatch.setattr(bench_model, "preset", tiny)
    monkeypatch.setattr(model_settings, "preset", tiny)
    fixed = limits.Limits(flops=1e12, bandwidth=1e10)
    monkeypatch.setattr(bench_model, "measure_limits", lambda device, dtype: fixed)


def settings(**changes: Any) -> ModelBenchSettings:
    usual: dict[str, Any] = {"tokens": (36,), "text": 6, "layers": 5, "new_tokens": 3}
    usual |= {"warmup": 0, "repeats": 2, "dtype": "float32", "methods": ("vanilla", "tgvkv")}
    return ModelBenchSettings(**{**usual, **changes})


def decoder(shape: str = "llava-1.5-7b", layers: int = 5) -> BenchDecoder:
    return BenchDecoder(tiny(shape), layers, CPU, torch.float32, longest=64)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_reads_the_same_weights_and_writes_its_own_cache(shape: str) -> None:
    bench = decoder(shape)
    layers = bench.model.model.layers
    assert len(layers) == 5 == bench.model.config.num_hidden_layers
    assert [layer.self_attn.layer_idx for layer in layers] == [0, 1, 2, 3, 4]
    first = dict(layers[0].named_parameters())
    for layer in layers[1:]:
        assert all(one is first[name] for name, one in layer.named_parameters())
    ids, layout = bench.prompt(36, 6, 2)
    output, run = bench.generate(ids, layout, None, 3)
    assert run is None
    cached = output.past_key_values.layers
    assert len(cached) == 5 and {one.keys.shape[2] for one in cached} == {36 + 6 + 2}
    assert not torch.equal(cached[0].keys, cached[1].keys)
    assert output.sequences.shape == (2, 36 + 6 + 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_method_that_keeps_all_answers_as_the_plain_decoder(shape: str) -> None:
    bench = decoder(shape)
    ids, layout = bench.prompt(36, 6, 1)
    method = compressor("tgvkv:retention=1.0", bench.facts)
    plain, _ = bench.generate(ids, layout, None, 3, output_logits=True)
    for driver in ("hooks", "nnsight"):
        ours, run = bench.generate(ids, layout, method, 3, driver=driver, output_logits=True)
        assert run is not None
        assert torch.equal(torch.stack(ours.logits), torch.stack(plain.logits))


def test_one_row_per_method_and_counted_round() -> None:
    frame = measure_model(settings(methods=METHODS, tokens=(36, 64), warmup=1))
    assert len(frame) == len(METHODS) * 2 * 2
    assert set(frame["method"]) == set(METHODS) and set(frame["repeat"]) == {0, 1}
    for name in ("ttft_ms", "step_ms", "throughput", "peak_bytes", "tower_ms"):
        assert (frame[name] > 0).all()
    assert set(frame["layers"]) == {5} and set(frame["new_tokens"]) == {3}
    one = frame[frame["tokens"] == 36].groupby("method").first()
    entry = 2 * 2 * 16 * 4  # key and value, two heads, 16 numbers of four bytes
    assert one.loc["vanilla", "kv_bytes"] == 5 * 42 * entry
    assert one.loc["tgvkv", "kv_bytes"] == pytest.approx(0.2 * 5 * 42 * entry, abs=entry)
    weights = (5 * tiny("llava-1.5-7b").shape.text.layer_matrix + 160 * 64) * 4
    assert one.loc["vanilla", "step_bytes"] == weights + 5 * 42 * entry
    assert one.loc["lightkv", "prefill_flops"] < one.loc["vanilla", "prefill_flops"]
    assert one.loc["tgvkv", "prefill_flops"] == one.loc["vanilla", "prefill_flops"]
    row = frame.iloc[0]
    assert_close(row["arithmetic_share"], row["prefill_flops"] / row["ttft_ms"] * 1000 / 1e12)
    assert_close(row["bandwidth_share"], row["step_bytes"] / row["step_ms"] * 1000 / 1e10)


def test_operations_of_a_prefill_by_hand() -> None:
    bench = decoder(layers=2)
    matrices = 2 * 64 * 16 * (4 + 2) + 3 * 64 * 96
    # Query-key pairs of 3 tokens are 6, of 2 tokens 3: scores and values, four heads of 16.
    attention = 2 * (6 + 3) * 4 * 16
    assert bench.prefill_flops([3, 2]) == 2 * (attention + 5 * matrices + 160 * 64)


def test_finished_pieces_are_not_measured_again(tmp_path: Path) -> None:
    out, told = tmp_path / "model.csv", []
    measure_model(settings(), out, command="first", tell=told.append)
    both = settings(tokens=(36, 64))
    frame = measure_model(both, out, command="second", tell=told.append)
    assert [line.endswith("measured before") for line in told] == [False, True, False]
    assert set(zip(frame["tokens"], frame["command"], strict=True)) == {
        (36, "first"),
        (64, "second"),
    }
    assert len(pd.read_csv(out)) == len(frame) == 8
    # Another setting is another piece, and what was there stays.
    other = measure_model(settings(new_tokens=4), out)
    assert len(other) == 4 and len(pd.read_csv(out)) == 12


def test_no_piece_is_begun_after_the_time_is_used_up(tmp_path: Path) -> None:
    told: list[str] = []
    frame = measure_model(settings(tokens=(36, 64)), seconds=0.0, tell=told.append)
    assert frame.empty and all("left, the time is used up" in line for line in told)
    assert len(told) == 2


def test_a_method_that_does_not_fit_says_why() -> None:
    frame = measure_model(settings(methods=("vanilla", "fastv:layer=7", "tgvkv")))
    refused = frame[frame["repeat"].isna()]
    assert list(refused["method"]) == ["fastv:layer=7"]
    assert "layer" in refused["reason"].iloc[0]
    assert set(summarise_model(frame)["method"]) == {"vanilla", "tgvkv"}


def test_ratios_compare_numbers_of_one_round() -> None:
    common = {"piece": "p", "shape": "s", "tokens": 36, "driver": "auto", "throughput": 1.0}
    common |= {"arithmetic_share": 0.5, "bandwidth_share": 0.5}
    common |= {"batch_size": 1, "half_products": False}
    rows = [
        {"method": "vanilla", "repeat": 0, "ttft_ms": 10, "step_ms": 4, "kv_bytes": 8},
        {"method": "vanilla", "repeat": 1, "ttft_ms": 20, "step_ms": 8, "kv_bytes": 8},
        {"method": "m", "repeat": 0, "ttft_ms": 20, "step_ms": 2, "kv_bytes": 2},
        {"method": "m", "repeat": 1, "ttft_ms": 40, "step_ms": 4, "kv_bytes": 2},
    ]
    frame = pd.DataFrame([{**common, **row, "peak_bytes": row["kv_bytes"]} for row in rows])
    summary = summarise_model(frame).set_index("method")
    ours = summary.loc["m"]
    assert (ours["ttft_ratio"], ours["ttft_low"], ours["ttft_high"]) == (2, 2, 2)
    assert ours["step_ratio"] == 0.5 and ours["kv_share"] == ours["peak_ratio"] == 0.25
    # 15 ms later (30 against 15), 3 ms a step saved (3 against 6): the sixth token.
    assert ours["break_even"] == 6
    assert summary.loc["vanilla", "break_even"] == 1
    without = summarise_model(frame[frame["method"] == "m"])
    assert "ttft_ratio" not in without and len(without) == 1


@pytest.mark.parametrize(
    ("later", "saved", "tokens"),
    [(0, -1, 1), (-2, 5, 1), (5, 0, float("inf")), (5, 2, 4), (4, 2, 3), (1, -1, float("inf"))],
)
def test_the_length_from_which_a_method_is_faster(
    later: float, saved: float, tokens: float
) -> None:
    assert break_even(later, saved) == tokens


@pytest.mark.parametrize(
    ("tokens", "rows", "columns"), [(576, 24, 24), (2144, 32, 67), (8000, 80, 100), (7, 1, 7)]
)
def test_the_grid_is_as_square_as_can_be(tokens: int, rows: int, columns: int) -> None:
    grid = grid_of(tokens)
    assert (grid.frames, grid.rows, grid.cols) == (1, rows, columns)


def test_decoders_of_the_families() -> None:
    kinds = [decoder_of(preset(shape)) for shape in SHAPES]
    assert kinds == ["llama", "llama", "mistral", "qwen2", "qwen3"]
    assert decoder_of(preset("internvl2-8b")) == "llama"
    with pytest.raises(InvalidValueError, match="eve-7b-v1"):
        decoder_of(preset("eve-7b-v1"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": (0,)}, "tokens is 0"),
        ({"tokens": ()}, "tokens"),
        ({"shapes": ()}, "shapes"),
        ({"methods": ()}, "methods"),
        ({"text": 0}, "text is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"new_tokens": 1}, "new_tokens is 1"),
        ({"warmup": -1}, "warmup is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"retention": 0.0}, "retention is 0.0"),
        ({"retention": 1.1}, "retention is 1.1"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": 33}, "1 to 32 for llava-1.5-7b"),
        ({"driver": "other"}, "driver"),
        ({"half_products": True, "dtype": "bfloat16"}, "half_products"),
        ({"dtype": "int8"}, "dtype"),
        ({"device": "cuda:77"}, "device"),
        ({"methods": ("snapkv:window=x",)}, "window"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        settings(**changes)


def test_half_precision_is_the_default_where_the_processor_has_it() -> None:
    number_type = settings(dtype=None).number_type
    assert number_type == (torch.bfloat16 if has_bfloat16(CPU) else torch.float32)
    assert has_bfloat16(torch.device("meta"))


def test_limits_are_measured() -> None:
    measured = limits.measure_limits(CPU, torch.float32)
    assert measured.flops > 0 and measured.bandwidth > 0


def test_the_command_measures_stores_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "model.csv"
    asked = ["model", "qwen3-vl-8b", "--tokens", "36", "--layers", "4", "--text", "6"]
    asked += ["--new-tokens", "2", "--repeats", "1", "--warmup", "0", "--dtype", "float32"]
    asked += ["--method", "vanilla", "--method", "random", "--out", str(out)]
    result = CliRunner().invoke(bench_group, asked)
    assert result.exit_code == 0, result.output
    assert "qwen3-vl-8b" in result.output and "ttft_ratio" in result.output
    frame = pd.read_csv(out)
    assert list(frame["method"]) == ["vanilla", "random"]
    assert frame["tower_ms"].isna().all()
    shown = CliRunner().invoke(bench_group, ["table", str(out)])
    assert shown.exit_code == 0 and shown.output in result.output
    out.write_text("a,b\n1,2\n")
    refused = CliRunner().invoke(bench_group, ["table", str(out)])
    assert isinstance(refused.exception, InputError)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--out", "nowhere/a.csv"], StoreError),
        (["--out", "a.json"], InvalidValueError),
        (["no-such-preset"], UnknownNameError),
        (["--layers", "5", "--method", "no-such-method"], UnknownNameError),
    ],
)
def test_the_command_refuses(arguments: list[str], error: type[Exception]) -> None:
    result = CliRunner().invoke(bench_group, ["model", *arguments])
    assert isinstance(result.exception, error)
