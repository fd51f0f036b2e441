"""What methods add to a layer: each is measured or says why not; what is refused and stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.timing import bench_layer
from analysis.timing.bench_cli import bench_group
from analysis.timing.bench_layer import BenchLayer, BenchSettings
from analysis.timing.bench_methods import measure_methods
from lightkv.catalogue import methods
from lightkv.contract import registry
from lightkv.cost.presets.shape import TextShape
from lightkv.errors import InvalidValueError, StoreError, UnknownNameError
from tests.closeness import assert_close

TINY = TextShape(layers=32, hidden=64, intermediate=96, heads=4, kv_heads=2, head_dim=16, vocab=160)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BenchSettings, "dimensions", TINY)


def settings(**changes: Any) -> BenchSettings:
    usual: dict[str, Any] = {"tokens": 81, "text": 6, "repeats": 2}
    return BenchSettings(**{**usual, **changes})


def test_every_registered_method_is_measured() -> None:
    bench = measure_methods(settings=settings())
    # One compresses before a question is read; one reads fourteen heads where the drawn layer has
    # four.
    assert set(bench.refused) == {"kvzip", "sparsevlm-plus"}
    assert "heads is 14" in str(bench.refused["sparsevlm-plus"])
    summary = bench.summary()
    measured = [name for name in methods() if name not in bench.refused]
    assert list(dict.fromkeys(summary["method"])) == measured
    assert (summary["of_layer"] > 0).all() and (summary["peak_mib"] > 0).all()
    assert (summary["low"] <= summary["of_layer"]).all()
    assert (summary["of_layer"] <= summary["high"]).all()
    parts = summary.groupby("method")["part"].agg(list)
    assert parts["lightkv"] == parts["hired"] == ["stage"]
    assert parts["tgvkv"] == parts["tome-cache"] == ["scoring", "retention"]
    frame = bench.frame()
    assert set(frame.loc[frame["part"].isna(), "method"]) == set(bench.refused)
    frame = frame[frame["part"].notna()]
    assert len(frame) == 2 * len(summary) and (frame["ratio"] > 0).all()
    assert set(frame["hidden"]) == {64} and set(frame["tokens"]) == {81}
    assert {"dtype", "device", "threads", "torch_version"} <= set(frame.columns)


def test_a_newly_registered_method_is_picked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: methods()[name] for name in ("lightkv", "random")}
    monkeypatch.setattr(registry, "_METHODS", kept)
    registry.register("brand-new")(kept["random"].build)
    bench = measure_methods(settings=settings(repeats=1))
    assert {"brand-new", "lightkv", "random"} <= {cost.method for cost in bench.costs}


def test_methods_that_do_not_fit_are_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blind = measure_methods(["lightkv"], settings()).costs
    assert [cost.part for cost in blind] == ["stage"]
    monkeypatch.setattr(bench_layer, "drawn_features", lambda *_: None)
    # 49 tokens are fewer than some pruners keep; without a tower others have nothing to read.
    bench = measure_methods(settings=settings(tokens=49, repeats=1))
    assert "at most 49" in bench.refused["cdpruner"]
    assert "vision tower" in bench.refused["hired"]
    measured = {cost.method for cost in bench.costs}
    assert measured | set(bench.refused) == set(methods()) and "lightkv" in measured
    rows = bench.frame().set_index("method")
    assert rows.loc["hired", "reason"] == bench.refused["hired"]


@pytest.mark.parametrize("method", ["tgvkv", "h2o", "snapkv", "aircache"])
def test_scoring_holds_blocks_and_never_a_map(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightkv.contract.attention.BLOCK_NUMBERS_CPU", 2**12)
    bench = measure_methods([method], settings(tokens=625, repeats=1))
    scoring = bench.costs[0]
    assert scoring.part == "scoring" and scoring.peak_bytes < bench.setting["map_bytes"] / 20
    assert scoring.peak_bytes < 4 * bench.setting["text_rows_bytes"]


def test_compositions_are_measured_part_by_part() -> None:
    bench = measure_methods(["lightkv | tgvkv", "tgvkv:retention=0.5"], settings(batch_size=2))
    assert [(cost.method, cost.part) for cost in bench.costs] == [
        ("lightkv", "stage"),
        ("tgvkv", "scoring"),
        ("tgvkv", "retention"),
        ("tgvkv:retention=0.5", "scoring"),
        ("tgvkv:retention=0.5", "retention"),
    ]
    assert bench.setting["map_bytes"] == 2 * 4 * 87 * 87 * 4
    assert bench.setting["text_rows_bytes"] == 2 * 4 * 6 * 87 * 4


def test_views_show_what_the_layer_computes() -> None:
    layer = BenchLayer(settings())
    view = layer.view(3)
    assert view.keys is not None and view.keys.shape == (1, 2, 87, 16)
    assert view.hidden.shape == (1, 87, 64)
    rows = view.read_attention().rows(view.layout.question).attention
    assert_close(rows.sum(-1), rows.new_ones(1, 6))
    assert layer.view(-1).attention is None and layer.view(-1).keys is None


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"tokens": 80}, "tokens"),
        ({"text": 0}, "text"),
        ({"repeats": 0}, "repeats"),
        ({"batch_size": 0}, "batch_size"),
        ({"retention": 0.0}, "retention"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "abacus"}, "device"),
        ({"dtype": "int3"}, "dtype"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        settings(**changes)
    assert error.value.name == name


@pytest.mark.parametrize(
    ("methods", "error"),
    [
        (["lightkw"], UnknownNameError),
        (["lightkv:ratios=(2,2,2)"], InvalidValueError),
        (["cdpruner:tokens=500"], InvalidValueError),
        (["lightkv:colour=red"], InvalidValueError),
    ],
)
def test_named_methods_are_refused_before_anything_runs(
    methods: list[str], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.timing.bench_methods.BenchLayer", _never)
    with pytest.raises(error):
        measure_methods(methods, settings())
    with pytest.raises(UnknownNameError):
        settings(shape="llava-99")


def _never(*_: object) -> None:
    raise AssertionError("nothing may run")


ARGUMENTS = ["methods", "--method", "lightkv|tgvkv", "--tokens", "81", "--repeats", "2"]


def test_the_command_prints_and_stores(tmp_path: Path) -> None:
    for name in ("bench.json", "bench.csv"):
        out = tmp_path / name
        result = CliRunner().invoke(bench_group, [*ARGUMENTS, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert "random weights" in result.output and "a map of all heads" in result.output
        assert list(tmp_path.glob(".*")) == []
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["setting"]["dtype"] == "float32" and len(content["layer"]["seconds"]) == 2
    assert [len(cost["seconds"]) for cost in content["costs"]] == [2, 2, 2]
    frame = pd.read_csv(tmp_path / "bench.csv")
    assert len(frame) == 6 and set(frame["part"]) == {"stage", "scoring", "retention"}


def test_the_command_refuses_places_it_cannot_write(tmp_path: Path) -> None:
    def run(out: Path) -> BaseException | None:
        return CliRunner().invoke(bench_group, [*ARGUMENTS, "--out", str(out)]).exception

    assert isinstance(run(tmp_path / "no" / "a.json"), StoreError)
    assert isinstance(run(tmp_path / "a.txt"), InvalidValueError)


def test_an_interrupted_run_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.timing.bench_methods._seconds", stop)
    result = CliRunner().invoke(bench_group, [*ARGUMENTS, "--out", str(tmp_path / "a.json")])
    assert result.exit_code != 0 and list(tmp_path.iterdir()) == []
