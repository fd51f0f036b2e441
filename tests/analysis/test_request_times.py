"""Recorded times of whole requests: which rows count, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import studies
from lightkv.errors import InputError


def rows(**changes: object) -> dict[str, object]:
    return {
        "shape": "llava-1.5-7b",
        "tokens": 576,
        "batch_size": 1,
        "layers": 32,
        "method": "vanilla",
        "repeat": 0,
        "ttft_ms": 50.0,
        "step_ms": 20.0,
        "tower_ms": 10.0,
        "machine": "GPU",
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


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        studies.request_times(recorded=str(tmp_path / "none.csv"))
    lacking = written(tmp_path, {name: value for name, value in rows().items() if name != "layers"})
    with pytest.raises(InputError, match="lacks layers: not written by lightkv bench model"):
        studies.request_times(recorded=lacking)
