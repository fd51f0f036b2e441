"""The time to the first token beside LightKV's Tables 1 and 2."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis import studies
from analysis.studies.speed import RECORDED
from figures.artefacts.prefill_tables import efficiency, first_token_seconds

HEADING = ("TTFT, s", "measured")


def test_it_is_the_median_of_the_rounds_in_seconds() -> None:
    runs = studies.request_times(models=("llava-1.5-13b",), methods=("lightkv",))
    assert RECORDED.is_file() and len(runs) >= 3
    median = first_token_seconds()["llava-1.5-13b", "lightkv"]
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
