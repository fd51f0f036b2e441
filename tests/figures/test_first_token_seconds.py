"""The time to the first token beside LightKV's Tables 1 and 2."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import studies
from analysis.studies import speed
from analysis.studies.speed import RECORDED
from figures.artefacts.prefill_tables import efficiency, first_token_seconds

HEADING = ("TTFT, s", "measured")


def test_it_is_the_median_of_the_rounds_in_seconds() -> None:
    runs = studies.request_times(models=("llava-1.5-13b",), methods=("lightkv",))
    assert RECORDED.is_file() and len(runs) >= 3
    median = first_token_seconds("llava-1.5-13b")["lightkv"]
    assert median == pytest.approx(sorted(runs["ttft_ms"])[len(runs) // 2] / 1000)


@pytest.mark.parametrize(
    ("method", "at", "shown"),
    [
        ("vanilla", 1.0, True),
        ("lightkv", 0.55, True),
        ("lightkv", 0.6, False),
        ("tome", 0.55, False),
    ],
)
def test_it_stands_where_the_setting_was_timed(method: str, at: float, shown: bool) -> None:
    rows = pd.DataFrame({"metric": ["ttft"], "value": [0.1]})
    assert (HEADING in efficiency("llava-1.5-7b", method, at, rows)) is shown


def test_a_model_that_is_not_recorded_has_no_number_until_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"metric": ["ttft"], "value": [0.1]})
    assert math.isnan(efficiency("internvl2-8b", "lightkv", 0.55, rows)[HEADING])
    record = pd.read_csv(RECORDED)  # type: ignore[call-overload]  # a path, where it is installed
    known = (record["shape"] == "llava-1.5-7b") & (record["tokens"] == 576)
    intern = record[known].assign(shape="internvl2-8b")
    intern.to_csv(tmp_path / "model.csv", index=False)
    known_seconds = first_token_seconds("llava-1.5-7b")["lightkv"]
    monkeypatch.setattr(speed, "RECORDED", tmp_path / "model.csv")
    first_token_seconds.cache_clear()
    seconds = efficiency("internvl2-8b", "lightkv", 0.55, rows)[HEADING]
    first_token_seconds.cache_clear()
    assert seconds == pytest.approx(known_seconds)
