"""Recorded times of whole requests: which rows count, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import studies
from analysis.timing.latency import LatencySettings
from lightkv import VLM
from lightkv.errors import InputError


def rows(**changes: object) -> dict[str, object]:
    return {
        "shape": "llava-1.5-7b",
        "tokens": 576,
        "text": 64,
        "batch_size": 1,
        "layers": 32,
        "new_tokens": 10,
        "retention": 0.2,
        "driver": "auto",
        "half_products": False,
        "device": "cuda",
        "machine": "GPU",
        "dtype": "bfloat16",
        "piece": "one",
        "method": "vanilla",
        "repeat": 0,
        "ttft_ms": 50.0,
        "step_ms": 20.0,
        "throughput": 40.0,
        "kv_bytes": 1000,
        "peak_bytes": 2000,
        "memory_kind": "peak",
        "tower_ms": 10.0,
        **changes,
    }


def written(path: Path, *several: dict[str, object]) -> str:
    file = path / "model.csv"
    pd.DataFrame(several).to_csv(file, index=False)
    return str(file)


def test_a_request_is_its_tower_its_first_token_and_99_steps(tmp_path: Path) -> None:
    mistral = rows(shape="llava-next-7b", tokens=2144, tower_ms=None)
    frame = studies.request_times(recorded=written(tmp_path, rows(), mistral))
    first, second = frame.to_dict("records")
    assert (first["ttft_ms"], first["latency_s"]) == (60.0, pytest.approx(0.06 + 1.98))
    assert (second["ttft_ms"], second["latency_s"]) == (50.0, pytest.approx(0.05 + 1.98))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8},
        {"layers": 8},
        {"driver": "nnsight"},
        {"half_products": True},
        {"repeat": None},
        {"method": "lightkv | tgvkv"},
        {"method": "random"},
        {"shape": "qwen3-vl-8b", "layers": 36},
    ],
)
def test_what_the_tables_do_not_show_does_not_count(
    change: dict[str, object], tmp_path: Path
) -> None:
    frame = studies.request_times(recorded=written(tmp_path, rows(), rows(**change)))
    assert frame["method"].tolist() == ["vanilla"]


def test_settings_of_a_method_are_part_of_its_text(tmp_path: Path) -> None:
    typed = rows(method="fastv:layer=2;removed=0.48")
    frame = studies.request_times(recorded=written(tmp_path, typed))
    assert frame[["compared", "method"]].to_numpy().tolist() == [["fastv", typed["method"]]]


def test_the_length_with_the_most_methods_counts_then_the_nearest(tmp_path: Path) -> None:
    lengths = [rows(tokens=8000), rows(tokens=144), rows(tokens=600)]
    frame = studies.request_times(recorded=written(tmp_path, *lengths))
    assert frame["tokens"].tolist() == [600]
    more = [*lengths, rows(tokens=8000, method="lightkv")]
    frame = studies.request_times(recorded=written(tmp_path, *more))
    assert frame["tokens"].tolist() == [8000, 8000]


def test_the_record_that_ships_has_the_papers_models_in_several_rounds() -> None:
    frame = studies.request_times(methods=("vanilla", "lightkv"))
    rounds = frame.groupby(["model", "compared"])["repeat"].nunique()
    for model in ("llava-1.5-13b", "llava-1.5-7b"):
        assert set(rounds[model].index) == {"vanilla", "lightkv"}
        assert (rounds[model] >= 3).all()
    assert (frame[["ttft_ms", "latency_s"]] > 0).all(axis=None)


def test_a_shape_that_is_asked_for_counts_at_its_own_depth(tmp_path: Path) -> None:
    intern = rows(shape="internvl2-8b", tokens=1792)
    file = written(tmp_path, rows(), intern)
    assert studies.request_times(recorded=file)["model"].tolist() == ["llava-1.5-7b"]
    of_one = studies.request_times(recorded=file, models=("internvl2-8b",))
    assert of_one["model"].tolist() == ["internvl2-8b"]


def steps(path: Path, *several: dict[str, object], embedded: VLM) -> pd.DataFrame:
    """What is recorded beside one round here."""
    frame = studies.decode_latency(
        embedded,
        retentions=(0.05,),
        measuring=LatencySettings(new_tokens=2, warmup=0, repeats=1),
        recorded=written(path, *several),
    )
    assert frame["recorded"].tolist() == [False] * 2 + [True] * (len(frame) - 2)
    return frame[frame["recorded"]].reset_index(drop=True)


def test_recorded_steps_have_the_lengths_and_what_was_typed(tmp_path: Path, embedded: VLM) -> None:
    frame = steps(
        tmp_path,
        rows(),
        rows(method="tgvkv", kv_bytes=200),
        rows(tokens=16000, piece="two", kv_bytes=3000),
        rows(tokens=16000, piece="two", kv_bytes=150, method="tgvkv:retention=0.05", text=100),
        embedded=embedded,
    )
    assert frame["retention"].tolist() == [1.0, 0.2, 1.0, 0.05]
    assert frame["context"].tolist() == [640, 640, 16064, 16100]
    assert frame["kv_share"].tolist() == [1.0, 0.2, 1.0, 0.05]
    assert (frame["model"] == "llava-1.5-7b").all() and (frame["machine"] == "GPU").all()
    assert frame["piece"].tolist() == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "lightkv"},
        {"method": "tgvkv:retention=0.5;system=text"},
        {"method": "tgvkv:entries=32"},
        {"method": "tgvkv:retention=1.0"},
        {"shape": "llava-1.5-13b", "layers": 40},
        {"batch_size": 8},
        {"layers": 8},
        {"driver": "nnsight"},
    ],
)
def test_other_methods_and_shapes_are_not_steps_of_the_paper(
    change: dict[str, object], tmp_path: Path, embedded: VLM
) -> None:
    frame = steps(tmp_path, rows(), rows(**change), embedded=embedded)
    assert frame["method"].tolist() == ["vanilla"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        studies.request_times(recorded=str(tmp_path / "none.csv"))
    lacking = written(tmp_path, {name: value for name, value in rows().items() if name != "layers"})
    with pytest.raises(InputError, match="lacks layers: not written by lightkv bench model"):
        studies.request_times(recorded=lacking)
